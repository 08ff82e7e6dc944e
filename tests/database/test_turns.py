"""Rows that are numbered behind a turn become visible in the order of their numbers."""

import asyncio

from sqlalchemy import select, text

from llmproxy.database.engine import Database, open_database
from llmproxy.history.tables import marks
from tests.databases import PostgresServer
from tests.timeouts import WAIT_SECONDS


async def test_who_comes_second_waits_until_the_first_is_done(database: Database) -> None:
    order: list[str] = []

    async def second(other: Database) -> None:
        async with other.write() as connection:
            await other.dialect.take_turn(connection, "rows")
            order.append("second")
            assert (await connection.execute(select(marks.c.seen))).scalars().all() == [1]

    async with open_database(database.engine.url.render_as_string(hide_password=False)) as other:
        await other.verify()
        async with database.write() as connection:
            await database.dialect.take_turn(connection, "rows")
            await connection.execute(marks.insert().values(name="a", seen=1))
            waiting = asyncio.create_task(second(other))
            if database.dialect.name == "postgresql":
                await until_one_waits(database)
            order.append("first")
        await waiting
    assert order == ["first", "second"]


async def test_other_turns_are_free(postgres: PostgresServer) -> None:
    """SQLite lets one connection write at a time, whatever for; a PostgreSQL session may take its own turn again."""
    url = postgres.create()
    async with open_database(url) as database, open_database(url) as other:
        await database.verify()
        async with database.write() as connection, asyncio.timeout(WAIT_SECONDS):
            await database.dialect.take_turn(connection, "rows")
            async with other.write() as second:
                await other.dialect.take_turn(second, "other rows")


async def until_one_waits(database: Database) -> None:
    waiting = text("SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted")
    async with database.read() as connection:
        while (await connection.execute(waiting)).scalar() == 0:
            pass
