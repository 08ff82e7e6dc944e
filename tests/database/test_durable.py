"""Transactions that survive the loss of power, beside those that need not."""

import asyncio

import pytest
from sqlalchemy import func, select

from llmproxy.cache.tables import flushes
from llmproxy.database.engine import Database

LINE = {"selector": "x", "created_at": 1.0}
#: https://sqlite.org/pragma.html#pragma_synchronous
NORMAL, FULL = 1, 2


async def synchronous(database: Database, *, durable: bool) -> int:
    """What SQLite was told about the disk, as seen inside of a transaction."""
    async with database.write(durable=durable) as connection:
        return int((await connection.exec_driver_sql("PRAGMA synchronous")).scalar_one())


async def test_each_transaction_has_what_it_asked_for_on_whichever_connection(sqlite: Database) -> None:
    wanted = [True, False, True, True, False, False, True]
    found = [await synchronous(sqlite, durable=durable) for durable in wanted]
    assert found == [FULL if durable else NORMAL for durable in wanted]
    at_once = await asyncio.gather(*(synchronous(sqlite, durable=durable) for durable in wanted))
    assert at_once == found


async def test_after_one_that_failed_too(sqlite: Database) -> None:
    with pytest.raises(KeyError):
        async with sqlite.write(durable=True):
            raise KeyError
    assert await synchronous(sqlite, durable=False) == NORMAL
    assert await synchronous(sqlite, durable=True) == FULL


@pytest.mark.parametrize("durable", [True, False])
async def test_both_commit_and_roll_back(database: Database, durable: bool) -> None:
    async with database.write(durable=durable) as connection:
        await connection.execute(flushes.insert(), LINE)

    async def fail() -> None:
        async with database.write(durable=durable) as connection:
            await connection.execute(flushes.insert(), LINE)
            raise KeyError

    with pytest.raises(KeyError):
        await fail()
    async with database.read() as connection:
        assert (await connection.execute(select(func.count()).select_from(flushes))).scalar_one() == 1
