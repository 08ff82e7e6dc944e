"""Point reads: on the loop's own thread where they are quick, and on another where they are not."""

import sqlite3
from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import bindparam, insert, select

from llmproxy.cache.sql import SqlTier
from llmproxy.database.engine import Database
from llmproxy.database.reads import DirectReads, PointQuery, Rows
from llmproxy.history.tables import marks
from tests.cache.entries import Faults, entry, key
from tests.clock import Clock
from tests.databases import ruin_sqlite

QUERY = PointQuery("SELECT 1")
QUICK, SLOW, VERY_SLOW = 0.0001, 0.01, 0.1


class Scripted:
    """A connection whose reads take as long as the test says, or fail."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self.seconds = QUICK
        self.error: Exception | None = None
        self.closed = False

    def execute(self, sql: str, values: Sequence[Any], /) -> "Scripted":
        self._clock.now += self.seconds
        if self.error is not None:
            raise self.error
        return self

    def fetchall(self) -> list[tuple[int]]:
        return [(1,)]

    def close(self) -> None:
        self.closed = True


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def connection(clock: Clock) -> Scripted:
    return Scripted(clock)


@pytest.fixture
def reads(clock: Clock, connection: Scripted) -> DirectReads:
    made = DirectReads(clock)
    made.use(connection)
    return made


def times(read: Callable[[], Rows | None], number: int) -> list[bool]:
    return [read() is not None for _ in range(number)]


def test_without_a_connection_everything_goes_to_the_threads(clock: Clock, connection: Scripted) -> None:
    reads = DirectReads(clock)
    assert reads.rows(QUERY, ()) is None
    reads.use(connection)
    assert reads.rows(QUERY, ()) == [(1,)]
    reads.use(None)
    assert connection.closed
    assert reads.rows(QUERY, ()) is None
    reads.close()


def test_one_slow_read_may_be_an_accident(reads: DirectReads, connection: Scripted) -> None:
    for seconds in (SLOW, *[QUICK] * 10) * 3:
        connection.seconds = seconds
        assert reads.rows(QUERY, ()) is not None


def test_slow_reads_go_to_the_threads_for_a_while(reads: DirectReads, connection: Scripted, clock: Clock) -> None:
    connection.seconds = SLOW
    assert times(lambda: reads.rows(QUERY, ()), 4) == [True, True, False, False]
    clock.now += 1.0
    assert times(lambda: reads.rows(QUERY, ()), 3) == [True, True, False], "it is tried again"
    clock.now += 0.5
    assert reads.rows(QUERY, ()) is None, "and later than before"
    clock.now += 30
    connection.seconds = QUICK
    assert times(lambda: reads.rows(QUERY, ()), 20) == [True] * 20


def test_one_very_slow_read_is_enough(reads: DirectReads, connection: Scripted) -> None:
    connection.seconds = VERY_SLOW
    assert times(lambda: reads.rows(QUERY, ()), 2) == [True, False]


def test_a_read_that_fails_goes_to_the_threads(reads: DirectReads, connection: Scripted, clock: Clock) -> None:
    connection.error = sqlite3.OperationalError("database is locked")
    assert times(lambda: reads.rows(QUERY, ()), 2) == [False, False]
    connection.error = None
    assert reads.rows(QUERY, ()) is None
    clock.now += 1.0
    assert reads.rows(QUERY, ()) is not None


BY_NAME = select(marks.c.seen).where(marks.c.name == bindparam("name"))


async def test_what_was_committed_is_read_at_once(sqlite: Database) -> None:
    query = sqlite.point_query(BY_NAME, ("name",))
    for seen in range(3):
        async with sqlite.write() as transaction:
            await transaction.execute(insert(marks), [{"name": f"n{seen}", "seen": seen}])
        assert sqlite.rows_at_once(query, (f"n{seen}",)) == [(seen,)]
    assert sqlite.rows_at_once(query, ("other",)) == []


async def test_the_connection_cannot_write(sqlite: Database) -> None:
    assert sqlite.rows_at_once(PointQuery("DELETE FROM history_marks"), ()) is None
    assert sqlite.rows_at_once(PointQuery("SELECT 1"), ()) is None, "it turned aside"


async def test_a_network_is_never_waited_for(database: Database) -> None:
    """PostgreSQL has no such reads, SQLite has."""
    query = database.point_query(BY_NAME, ("name",))
    expected: Rows | None = [] if database.dialect.name == "sqlite" else None
    assert database.rows_at_once(query, ("x",)) == expected
    assert list(await database.rows(query, ("x",))) == []


async def test_a_closed_database_is_not_read(sqlite: Database) -> None:
    query = sqlite.point_query(BY_NAME, ("name",))
    await sqlite.close()
    assert sqlite.rows_at_once(query, ("x",)) is None


class Counting(Database):
    """Counts the reads on threads."""

    threads = 0

    async def rows(self, query: PointQuery, values: Sequence[Any]) -> Rows:
        self.threads += 1
        return await super().rows(query, values)


@pytest.fixture
async def counting(sqlite: Database) -> Counting:
    made = Counting(sqlite.dialect, sqlite.engine)
    await made.verify()
    return made


async def test_only_large_rows_of_the_cache_are_read_on_threads(counting: Counting) -> None:
    async with SqlTier(counting, compress_from=10**9, clock=Clock(), on_fault=Faults()) as tier:
        tier.keep(entry(1))
        tier.keep(entry(2, document=b"x" * 200_000))
        await tier.drained()
        counting.threads = 0
        assert await tier.get(key(1)) == entry(1)
        assert await tier.get(key(3)) is None
        assert counting.threads == 0
        assert await tier.get(key(2)) == entry(2, document=b"x" * 200_000)
        assert counting.threads == 1
    await counting.close()


async def test_a_lock_and_a_ruined_file_are_left_to_the_threads(counting: Counting, sqlite_file: Path) -> None:
    faults = Faults()
    async with SqlTier(counting, compress_from=10**9, clock=Clock(), on_fault=faults) as tier:
        tier.keep(entry(1))
        await tier.drained()
        assert await tier.get(key(1)) is not None
        with closing(sqlite3.connect(sqlite_file, isolation_level=None)) as other:
            other.execute("PRAGMA locking_mode = NORMAL")
            other.execute("BEGIN IMMEDIATE")
            assert await tier.get(key(1)) is not None, "a writer is in nobody's way"
            other.execute("ROLLBACK")
        assert faults.kinds == []
        ruin_sqlite(sqlite_file)
        await counting.close()
        assert await tier.get(key(1)) is None
        assert faults.kinds != []
    await counting.close()
