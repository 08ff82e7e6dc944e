"""The SQL tier's own: writing behind, real faults of real databases, rows that were harmed."""

import asyncio
import contextlib
import logging
import sqlite3
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from sqlalchemy import event, text, update

from llmproxy.cache.sql import SqlTier
from llmproxy.cache.tables import entries
from llmproxy.cache.tier import Selector
from llmproxy.database.engine import Database, open_database
from llmproxy.database.write_behind import WriteLimits
from llmproxy.runtime.background import Backoff
from tests.cache.entries import Faults, entry, key, streamed
from tests.clock import Clock
from tests.databases import PostgresServer, remove_sqlite, ruin_sqlite, sqlite_url
from tests.timeouts import WAIT_SECONDS

QUICK = WriteLimits(linger=0.001)
#: after a fault a tier tries again at once: that it rests at all is tested with a clock in ``test_breaker``
AT_ONCE = Backoff(1e-9, 1e-9)


@asynccontextmanager
async def sql_tier(
    database: Database, faults: Faults, limits: WriteLimits = QUICK, clock: Clock | None = None
) -> AsyncIterator[SqlTier]:
    clock = clock or Clock()
    tier = SqlTier(
        database,
        compress_from=10**9,
        clock=clock,
        on_fault=faults,
        limits=limits,
        census_seconds=0,
        backoff=AT_ONCE,
    )
    async with tier:
        yield tier


async def written(tier: SqlTier) -> None:
    async with asyncio.timeout(WAIT_SECONDS):
        await tier.drained()


def commits(database: Database) -> list[object]:
    """Grows by one with every commit from now on."""
    seen: list[object] = []
    event.listen(database.engine.sync_engine, "commit", seen.append)
    return seen


async def rows(database: Database) -> int:
    async with database.read() as connection:
        return int((await connection.execute(text("SELECT count(*) FROM cache_entries"))).scalar_one())


async def test_one_transaction_for_many_entries(database: Database) -> None:
    seen = commits(database)
    async with sql_tier(database, Faults()) as tier:
        for number in range(400):
            tier.keep(entry(number))
        await written(tier)
        assert await rows(database) == 400
    assert len(seen) == 1


async def test_a_batch_is_bounded_in_entries_and_bytes(sqlite: Database) -> None:
    seen = commits(sqlite)
    async with sql_tier(sqlite, Faults(), WriteLimits(linger=0.001, group_items=10, group_bytes=1000)) as tier:
        for number in range(30):
            tier.keep(entry(number))
        await written(tier)
        assert len(seen) == 3
        for number in range(3):
            tier.keep(entry(number, document=b"x" * 5000))
        await written(tier)
        assert len(seen) == 6


async def test_over_its_bound_the_queue_keeps_nothing_and_counts(sqlite: Database) -> None:
    faults = Faults()
    limits = WriteLimits(items=2, bytes=10_000, linger=0.001)
    async with sql_tier(sqlite, faults, limits) as tier:
        for number in range(4):
            tier.keep(entry(number))
        assert [tier.peek(key(number)) is not None for number in range(4)] == [True, True, False, False]
        tier.keep(entry(1, document=b"x" * 20_000))
        assert tier.peek(key(1)) is None
        await written(tier)
        assert await rows(sqlite) == 1
    assert faults.kinds == ["queue-full"] * 3


async def test_closing_writes_what_waits(database: Database) -> None:
    async with sql_tier(database, Faults(), WriteLimits(linger=60)) as tier:
        for number in range(50):
            tier.keep(entry(number))
    assert await rows(database) == 50


async def test_closing_ends_while_the_database_fails(sqlite: Database, sqlite_file: Path) -> None:
    faults = Faults()
    with contextlib.closing(sqlite3.connect(sqlite_file, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        async with sql_tier(sqlite, faults, QUICK) as tier:
            tier.keep(entry(1))
            await tier.close(0.05)
        other.execute("ROLLBACK")
    assert faults.kinds[-1] == "lost"


async def test_a_flush_catches_the_batch_on_its_way(database: Database) -> None:
    begun = asyncio.Event()
    async with sql_tier(database, Faults()) as tier:
        event.listen(database.engine.sync_engine, "begin", lambda connection: begun.set())
        for number in range(300):
            tier.keep(entry(number))
        await begun.wait()
        assert (await tier.flush(Selector(all=True))).entries == 300
        await written(tier)
        assert await rows(database) == 0


async def test_an_entry_that_no_row_can_hold_harms_no_other(database: Database) -> None:
    faults = Faults()
    async with sql_tier(database, faults) as tier:
        for number, model in enumerate(("a", "nul\0", "half\ud83d", "b")):
            tier.keep(entry(number, model=model))
        await written(tier)
        assert await rows(database) == 2
    assert faults.kinds == ["refused", "refused"]


async def test_a_row_that_the_database_refuses_is_found_and_left_out(database: Database) -> None:
    refusal = {
        "sqlite": "CREATE TRIGGER bad BEFORE INSERT ON cache_entries WHEN NEW.model = 'bad'"
        " BEGIN SELECT RAISE(ABORT, 'bad'); END",
        "postgresql": "ALTER TABLE cache_entries ADD CONSTRAINT bad CHECK (model <> 'bad')",
    }
    async with database.write() as connection:
        await connection.exec_driver_sql(refusal[database.dialect.name])
    async with sql_tier(database, Faults()) as tier:
        for number in range(40):
            tier.keep(entry(number, model="bad" if number == 17 else "good"))
        await written(tier)
        assert await rows(database) == 39
        assert await tier.get(key(17)) is None
        assert await tier.get(key(18)) is not None


@pytest.mark.parametrize("column", ["body", "digest"])
async def test_a_harmed_row_is_a_miss_deleted_and_counted(database: Database, column: str) -> None:
    async with sql_tier(database, Faults()) as tier:
        tier.keep(streamed(1))
        tier.keep(streamed(2))
        await written(tier)
        async with database.write() as connection:
            await connection.execute(
                update(entries).where(entries.c.key == key(1)).values({column: b"0123456789abcdef"})
            )
        assert await tier.get(key(1)) is None
        await written(tier)
        assert await rows(database) == 1
        assert (await tier.stats()).evictions["broken"] == 1
        assert await tier.get(key(2)) == streamed(2)


async def test_a_row_of_another_format_is_a_miss_and_left_alone(database: Database) -> None:
    async with sql_tier(database, Faults()) as tier:
        tier.keep(entry(1))
        await written(tier)
        async with database.write() as connection:
            await connection.execute(update(entries).values(format=99))
        assert await tier.get(key(1)) is None
        assert await tier.get_many([key(1)]) == {}
        assert await tier.holds([key(1)]) == set()
        await written(tier)
        assert await rows(database) == 1


async def test_use_is_noted_coarsely(database: Database) -> None:
    clock = Clock()

    async def used() -> float:
        async with database.read() as connection:
            return float((await connection.execute(text("SELECT used_at FROM cache_entries"))).scalar_one())

    async with sql_tier(database, Faults(), clock=clock) as tier:
        tier.keep(entry(1))
        await written(tier)
        first = clock.now
        for passed, noted in ((300.0, 0.0), (700.0, 700.0), (900.0, 700.0), (1400.0, 1400.0)):
            clock.now = first + passed
            await tier.get(key(1))
            await written(tier)
            assert await used() == first + noted


async def test_holds_and_lookup(database: Database) -> None:
    async with sql_tier(database, Faults()) as tier:
        for number in range(100):
            tier.keep(entry(number))
        await written(tier)
        tier.keep(entry(100))
        assert await tier.holds([key(number) for number in range(50, 150)]) == {key(n) for n in range(50, 101)}
        assert await tier.lookup(key(7).hex()[:20]) == entry(7)
        assert await tier.lookup("f" * 64) is None
        with pytest.raises(ValueError, match="hex"):
            await tier.lookup("no hex")


async def test_figures_are_kept_for_a_while(sqlite: Database) -> None:
    tier = SqlTier(sqlite, compress_from=10**9, clock=Clock(), on_fault=Faults(), limits=QUICK, census_seconds=3600)
    async with tier:
        assert (await tier.stats()).entries == 0
        tier.keep(entry(1))
        await written(tier)
        assert (await tier.stats()).entries == 0


async def test_full_disk(sqlite: Database, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    pages = 60

    @event.listens_for(sqlite.engine.sync_engine, "checkout")
    def limit(connection: sqlite3.Connection, *_: object) -> None:
        connection.execute(f"PRAGMA max_page_count = {pages}")

    faults = Faults()
    async with sql_tier(sqlite, faults, WriteLimits(linger=0.001, group_items=1)) as tier:
        tier.keep(entry(0))
        await written(tier)
        for number in range(1, 6):
            tier.keep(entry(number, document=b"x" * 200_000))
        await faults.seen("full", 3)
        # reading goes on, and so does what waits
        assert await tier.get(key(0)) is not None
        assert await tier.get(key(5)) is not None
        pages = 10_000
        await written(tier)
        assert await rows(sqlite) == 6
    assert set(faults.kinds) == {"full"}
    assert [record.levelname for record in caplog.records if record.name == "llmproxy.database.outage"] == [
        "WARNING",
        "WARNING",
    ]


async def test_locked_by_another_process(sqlite: Database, sqlite_file: Path) -> None:
    faults = Faults()
    async with sql_tier(sqlite, faults) as tier:
        tier.keep(entry(1))
        await written(tier)
        with contextlib.closing(sqlite3.connect(sqlite_file, isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            tier.keep(entry(2))
            for _ in range(10):
                assert await tier.get(key(1)) is not None
            await faults.seen("locked")
            assert (await tier.flush(Selector(key=key(1)))).failed == ("sql",)
            other.execute("ROLLBACK")
        await written(tier)
        assert await tier.get(key(2)) is not None
    assert set(faults.kinds) == {"locked"}


async def test_a_file_deleted_while_running(sqlite: Database, sqlite_file: Path) -> None:
    faults = Faults()
    async with sql_tier(sqlite, faults) as tier:
        tier.keep(entry(1))
        await written(tier)
        remove_sqlite(sqlite_file)
        tier.keep(entry(2))
        await written(tier)
        assert await tier.get(key(2)) is not None
        assert await tier.get(key(1)) is None
        with contextlib.closing(sqlite3.connect(sqlite_file)) as other:
            assert other.execute("SELECT count(*) FROM cache_entries").fetchall() == [(1,)]
    assert faults.kinds == []


async def test_a_file_replaced_by_rubbish_and_by_nothing_again(sqlite_file: Path) -> None:
    faults = Faults()
    async with open_database(sqlite_url(sqlite_file)) as database, sql_tier(database, faults) as tier:
        await database.verify()
        tier.keep(entry(1))
        await written(tier)
        ruin_sqlite(sqlite_file)
        tier.keep(entry(2))
        await faults.seen("corrupt")
        assert await tier.get(key(1)) is None
        remove_sqlite(sqlite_file)
        await written(tier)
        assert await tier.get(key(2)) is not None


async def test_a_table_dropped_while_running(database: Database) -> None:
    faults = Faults()
    async with sql_tier(database, faults) as tier:
        async with database.write() as connection:
            await connection.execute(text("ALTER TABLE cache_entries RENAME TO elsewhere"))
        assert await tier.get(key(1)) is None
        assert await tier.get_many([key(1)]) == {}
        assert await tier.lookup("ab") is None
        assert (await tier.stats()).entries == 0
        assert (await tier.flush(Selector(all=True))).failed == ("sql",)
        async with database.write() as connection:
            await connection.execute(text("ALTER TABLE elsewhere RENAME TO cache_entries"))
        tier.keep(entry(1))
        await written(tier)
        assert await tier.get(key(1)) is not None
    assert set(faults.kinds) == {"schema"}


async def test_postgres_gone_and_back(postgres: PostgresServer) -> None:
    faults = Faults()
    async with open_database(postgres.create()) as database, sql_tier(database, faults) as tier:
        await database.verify()
        tier.keep(entry(1))
        await written(tier)
        assert await tier.get(key(1)) is not None
        postgres.stop()
        try:
            assert await tier.get(key(1)) is None
            tier.keep(entry(2))
            assert await tier.get(key(2)) is not None
            await faults.seen("unreachable", 3)
        finally:
            postgres.start()
        await written(tier)
        assert await tier.get(key(1)) is not None
        assert await rows(database) == 2
    assert set(faults.kinds) == {"unreachable"}


async def test_a_database_that_was_never_there_is_a_miss(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    faults = Faults()
    async with (
        open_database(sqlite_url(tmp_path / "file" / "x.db")) as database,
        sql_tier(database, faults) as tier,
    ):
        assert await tier.get(key(1)) is None
        tier.keep(entry(1))
        assert await tier.get(key(1)) is not None
        await faults.seen("unreachable", 2)
        (tmp_path / "file").unlink()
        await written(tier)
        assert await tier.get(key(1)) is not None


async def test_a_look_up_that_takes_too_long_is_a_miss(sqlite: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    faults = Faults()
    async with sql_tier(sqlite, faults) as tier:
        # large enough for a thread
        tier.keep(entry(1, document=b"x" * 100_000))
        await written(tier)
        monkeypatch.setattr("llmproxy.cache.sql._LOOKUP_SECONDS", 0.0)
        assert await tier.get(key(1)) is None
        monkeypatch.setattr("llmproxy.cache.sql._LOOKUP_SECONDS", 5.0)
        assert await tier.get(key(1)) is not None
    assert faults.kinds == ["timeout"]
