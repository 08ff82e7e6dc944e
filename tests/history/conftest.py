"""A database of the test's own."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from llmproxy.database.engine import Database, open_database


@pytest.fixture
async def database(tmp_path: Path) -> AsyncIterator[Database]:
    async with open_database(f"sqlite+aiosqlite:///{tmp_path / 'history.db'}") as opened:
        yield opened
