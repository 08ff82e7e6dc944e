"""The rows of all tables from an SQLite file to PostgreSQL: which there are, and what is another's over there."""

import asyncio
from pathlib import Path

from llmproxy.cache import tables as cache_tables
from llmproxy.database.backup import check_unused
from llmproxy.database.engine import open_database
from llmproxy.database.metadata import metadata
from llmproxy.database.transfer import Change, OnProgress, Row, copy_rows
from llmproxy.history import rollups
from llmproxy.history import tables as history_tables
from llmproxy.history.text_index import Texts
from llmproxy.jobs import tables as job_tables
from llmproxy.jobs.leases import AT_ONCE, RELEASED
from llmproxy.jobs.model import ItemStatus
from llmproxy.upstream import tables as upstream_tables

#: importing them is what declares the tables on ``metadata``
DECLARING = (cache_tables, history_tables, rollups, job_tables, upstream_tables)


def _without_waits(row: Row) -> Row:
    """An item of a job: whoever worked on it is gone, and times to wait for go by another clock over there."""
    released = RELEASED if row["status"] == ItemStatus.RUNNING else {}
    return row | released | {"due_at": AT_ONCE}


def _without_texts(row: Row) -> Row | None:
    """A checkpoint: texts are indexed anew, in the form of the other database."""
    return None if row["name"] == Texts.name else row


CHANGES: dict[str, Change] = {
    job_tables.items.name: _without_waits,
    history_tables.marks.name: _without_texts,
    # of programs that are not there
    cache_tables.processes.name: lambda row: None,
}


def copy(source: Path, target: str, on_progress: OnProgress) -> dict[str, int]:
    """Copies all. Returns the number of rows by table. Raises what ``copy_rows`` does, also if the source is in use."""
    check_unused(source)

    async def run() -> dict[str, int]:
        async with open_database(f"sqlite+aiosqlite:///{source}") as here, open_database(target) as there:
            return await copy_rows(here, there, metadata.sorted_tables, CHANGES, on_progress)

    return asyncio.run(run())
