"""All rows of one database into another, empty one, in one transaction of each."""

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from typing import Any

from sqlalchemy import Column, Integer, Table, func, insert, select, text
from sqlalchemy.ext.asyncio import AsyncConnection

from llmproxy.database.engine import Database
from llmproxy.database.faults import DatabaseUnusable

#: a row by its columns
Row = dict[str, Any]
#: what a row becomes in the other database, None for one that is not taken along
Change = Callable[[Row], Row | None]
#: takes how many rows are copied of how many
OnProgress = Callable[[int, int], object]

#: rows and bytes of their bodies that are sent at once
_ROWS, _BYTES = 500, 8 * 1024 * 1024


async def copy_rows(
    source: Database, target: Database, tables: Sequence[Table], changes: Mapping[str, Change], on_progress: OnProgress
) -> dict[str, int]:
    """Copies the rows of ``tables``, those that others refer to first. ``changes`` go by the table's name.

    Returns how many rows each table has in the target, which were counted there. Raises ``DatabaseUnusable`` if the
    target has rows already or other counts in the end, else what the databases raise; nothing is copied then.
    """
    await source.verify()
    await target.verify()
    async with source.read() as reading, target.write(durable=True) as writing:
        await _check_empty(writing, tables)
        totals = {table.name: await _count(reading, table) for table in tables}
        done, copied = 0, {}
        for table in tables:
            taken = 0
            async for rows in _chunks(reading, table):
                kept = list(filter(None, map(changes.get(table.name, _as_it_is), rows)))
                if kept:
                    await writing.execute(insert(table), kept)
                done, taken = done + len(rows), taken + len(kept)
                on_progress(done, sum(totals.values()))
            copied[table.name] = taken
            await _number_on(reading, writing, table)
        for table in tables:
            if (found := await _count(writing, table)) != copied[table.name]:
                raise DatabaseUnusable(f"{table.name} has {found:,} rows there, but {copied[table.name]:,} were copied")
    return copied


def _as_it_is(row: Row) -> Row:
    return row


async def _check_empty(connection: AsyncConnection, tables: Sequence[Table]) -> None:
    """Raises ``DatabaseUnusable``."""
    for table in tables:
        if count := await _count(connection, table):
            raise DatabaseUnusable(f"{table.name} has {count:,} rows there already: copy into a new database")


async def _count(connection: AsyncConnection, table: Table) -> int:
    return int((await connection.execute(select(func.count()).select_from(table))).scalar_one())


async def _chunks(connection: AsyncConnection, table: Table) -> AsyncIterator[list[Row]]:
    """The rows in the order of their keys, in pieces that fit into memory."""
    rows: list[Row] = []
    size = 0
    query = select(table).order_by(*table.primary_key).execution_options(yield_per=20)
    async with connection.stream(query) as found:
        async for each in found.mappings():
            row = {name: _storable(value) for name, value in each.items()}
            size += sum(len(value) for value in row.values() if isinstance(value, bytes | str))
            rows.append(row)
            if len(rows) >= _ROWS or size >= _BYTES:
                yield rows
                rows, size = [], 0
    if rows:
        yield rows


def _storable(value: Any) -> Any:
    """A value without what PostgreSQL refuses in a text."""
    return value.replace("\0", "") if isinstance(value, str) else value


async def _number_on(source: AsyncConnection, target: AsyncConnection, table: Table) -> None:
    """Has the target give out higher numbers than any that the source has given out."""
    column = next((each for each in table.primary_key if _counts_up(each)), None)
    if column is None or target.dialect.name != "postgresql":
        return
    highest = (await source.execute(select(func.max(column)))).scalar() or 0
    if source.dialect.name == "sqlite" and table.dialect_options["sqlite"]["autoincrement"]:
        given = text("SELECT seq FROM sqlite_sequence WHERE name = :name")
        highest = max(highest, (await source.execute(given, {"name": table.name})).scalar() or 0)
    if highest:
        sequence = func.pg_get_serial_sequence(table.name, column.name)
        await target.execute(select(func.setval(sequence, highest)))


def _counts_up(column: Column[Any]) -> bool:
    return column.autoincrement is True and isinstance(column.type, Integer)
