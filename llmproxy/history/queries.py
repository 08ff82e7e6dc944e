"""Questions about what happened."""

from typing import Any

from sqlalchemy import select

from llmproxy.database.engine import Database
from llmproxy.history.tables import history

LIMIT = 1_000

#: columns whose name in the documents is another one
NAMES = {"user_name": "user", "cache_key": "key"}

#: too large for lists
BODIES = {"request_body", "response_body"}

_LISTED = [column.label(NAMES.get(column.name, column.name)) for column in history.columns if column.name not in BODIES]


async def latest(database: Database, limit: int) -> list[dict[str, Any]]:
    """The newest exchanges, newest first, at most 1,000, JSON-ready, without bodies. Raises what the database does."""
    newest = select(*_LISTED).order_by(history.c.id.desc()).limit(max(0, min(limit, LIMIT)))
    async with database.read() as connection:
        return [
            {str(name): value for name, value in row.items()} for row in (await connection.execute(newest)).mappings()
        ]
