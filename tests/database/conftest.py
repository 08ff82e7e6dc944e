"""Databases here begin empty: how they get their schema is what is tested."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from llmproxy.database.engine import Database, open_database
from tests.databases import empty_database_url as database_url
from tests.databases import sqlite_url

__all__ = ["database_url"]


@pytest.fixture
async def sqlite(sqlite_file: Path) -> AsyncIterator[Database]:
    """An open SQLite database in ``sqlite_file``, which it has made."""
    async with open_database(sqlite_url(sqlite_file)) as database:
        await database.verify()
        yield database
