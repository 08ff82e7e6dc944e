"""Rows of what requests added up to: written, read, merged by the hour, deleted. Raises what the database raises."""

import asyncio
from collections.abc import Iterable, Mapping
from typing import Any

from sqlalchemy import and_, delete, insert, select

from llmproxy.database.engine import Database
from llmproxy.history.rollup_tables import rollups
from llmproxy.observe.performance import MINUTE, Cell, Cells, PerformanceSeries, merge
from llmproxy.observe.quantiles import Distribution

HOUR = 3600

#: columns that hold a packed ``Distribution``, named as in ``Cell``
_PACKED = ("durations", "first_tokens", "speeds")
_PLAIN = ("requests", "errors", "prompt_tokens", "completion_tokens", "upstream_seconds")

Row = dict[str, Any]


async def write(database: Database, minutes: Mapping[int, Cells]) -> None:
    """Keeps minutes in one transaction."""
    rows = [_row(start, MINUTE, series, cell) for start, cells in minutes.items() for series, cell in cells.items()]
    if rows:
        async with database.write() as connection:
            await connection.execute(insert(rollups), rows)


async def read(database: Database, since: int) -> Cells:
    """What is kept of spans that began at the Unix second ``since`` or later."""
    async with database.read() as connection:
        rows = (await connection.execute(select(rollups).where(rollups.c.started_at >= since))).mappings().all()
    # a day of many models is some hundred thousand steps: not on the loop
    return await asyncio.to_thread(_merged, rows)


async def condense(database: Database, before: int) -> None:
    """Makes one row of an hour out of its minutes, series by series, for the hours that ended before this second.

    Another process may do the same at the same time: the minutes go to the one that deletes them.
    """
    minutes = and_(rollups.c.seconds == MINUTE, rollups.c.started_at < before // HOUR * HOUR)
    key = (rollups.c.endpoint, rollups.c.model, rollups.c.cache)
    async with database.read() as connection:
        found = (await connection.execute(select(rollups.c.started_at, *key).where(minutes).distinct())).all()
    for hour, *words in sorted({(start // HOUR * HOUR, *words) for start, *words in found}):
        whole = and_(rollups.c.started_at >= hour, rollups.c.started_at < hour + HOUR)
        same = (column == word for column, word in zip(key, words, strict=True))
        async with database.write() as connection:
            gone = await connection.execute(delete(rollups).where(minutes, whole, *same).returning(*rollups.columns))
            rows = [_row(hour, HOUR, *each) for each in _merged(gone.mappings().all()).items()]
            if rows:
                await connection.execute(insert(rollups), rows)


async def expire(database: Database, before: int) -> None:
    """Deletes what began before this second."""
    async with database.write() as connection:
        await connection.execute(delete(rollups).where(rollups.c.started_at < before))


def _row(start: int, seconds: int, series: PerformanceSeries, cell: Cell) -> Row:
    return {
        "started_at": start,
        "seconds": seconds,
        **series._asdict(),
        **{name: getattr(cell, name) for name in _PLAIN},
        **{name: getattr(cell, name).pack() for name in _PACKED},
    }


def _cell(row: Mapping[str, Any]) -> Cell:
    values: dict[str, Any] = {name: row[name] for name in _PLAIN}
    values.update((name, Distribution.unpack(row[name])) for name in _PACKED)
    return Cell(**values)


def _merged(rows: Iterable[Mapping[Any, Any]]) -> Cells:
    cells: Cells = {}
    for row in rows:
        merge(cells, {PerformanceSeries(row["endpoint"], row["model"], row["cache"]): _cell(row)})
    return cells
