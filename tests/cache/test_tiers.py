"""The cache: memory in front of SQL, and several processes on one database."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import event, text

from llmproxy.cache.entry import Entry
from llmproxy.cache.flush import FlushLog
from llmproxy.cache.memory import MemoryTier
from llmproxy.cache.sql import SqlTier
from llmproxy.cache.tier import Selector
from llmproxy.cache.tiers import Cache, open_cache
from llmproxy.cache.writer import WriteLimits
from llmproxy.config.settings import Settings
from llmproxy.database.engine import Database, open_database
from tests.cache.entries import Clock, Faults, entry, key
from tests.databases import sqlite_url


class Process:
    """A cache as one process has it, on a database that it shares with others."""

    def __init__(self, database: Database, clock: Clock, limits: WriteLimits):
        self.memory = MemoryTier(100, 10**6, clock)
        self.sql = SqlTier(
            database, compress_from=10**9, clock=clock, on_fault=Faults(), limits=limits, census_seconds=0
        )
        log = FlushLog(database, clock)
        self.cache = Cache(self.memory, self.sql, log=log, clock=clock, on_fault=Faults())


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
async def processes(database_url: str, clock: Clock) -> AsyncIterator[list[Process]]:
    """Three; the third one does not write what waits."""
    async with AsyncExitStack() as stack:
        several = []
        for linger in (0.001, 0.001, 3600):
            database = await stack.enter_async_context(open_database(database_url))
            await database.verify()
            process = Process(database, clock, WriteLimits(linger=linger))
            await stack.enter_async_context(process.sql)
            several.append(process)
        yield several


async def test_an_answer_of_one_process_is_a_hit_in_another(processes: list[Process]) -> None:
    first, second, _ = processes
    first.cache.store(entry(1))
    await first.sql.drained()
    assert await second.cache.find(key(1)) == (entry(1), "sql")
    assert await second.cache.find(key(1)) == (entry(1), "memory")
    assert second.cache.peek(key(1)) == entry(1)


async def test_what_is_past_its_lifetime_is_found_but_not_promoted(processes: list[Process], clock: Clock) -> None:
    first, second, _ = processes
    first.cache.store(entry(1))
    await first.sql.drained()
    clock.now += 10_000
    for _ in range(2):
        assert await second.cache.find(key(1)) == (entry(1), "sql")
    assert await second.cache.find_many([key(1)]) == {key(1): entry(1)}
    assert len(second.memory) == 0


async def test_many_are_promoted_too(processes: list[Process]) -> None:
    first, second, _ = processes
    for number in range(5):
        first.cache.store(entry(number))
    await first.sql.drained()
    assert len(await second.cache.find_many([key(number) for number in range(9)])) == 5
    assert len(second.memory) == 5


async def test_what_is_only_remembered_is_not_written(processes: list[Process]) -> None:
    first, second, _ = processes
    first.cache.remember(entry(1))
    await first.sql.drained()
    assert await first.cache.find(key(1)) == (entry(1), "memory")
    assert await second.cache.find(key(1)) is None


async def test_what_waits_can_be_peeked_at_without_memory(processes: list[Process], clock: Clock) -> None:
    cache = Cache(None, processes[2].sql, log=None, clock=clock, on_fault=Faults())
    cache.store(entry(1))
    assert cache.peek(key(1)) == entry(1)
    assert cache.in_memory() == []


async def test_a_flush_reaches_the_memory_of_the_others(processes: list[Process], clock: Clock) -> None:
    first, second, _ = processes
    for number, model in enumerate("aab"):
        first.cache.store(entry(number, model=model))
    await first.sql.drained()
    await second.cache.find_many([key(number) for number in range(3)])
    clock.now += 5
    assert (await first.cache.flush(Selector(model="a"))).entries == 2
    assert await second.cache.find(key(0)) is not None
    await second.cache.follow()
    assert await second.cache.find_many([key(number) for number in range(3)]) == {key(2): entry(2, model="b")}


async def test_a_flush_reaches_what_another_process_has_not_written_yet(processes: list[Process], clock: Clock) -> None:
    first, _, slow = processes
    slow.cache.store(entry(1))
    clock.now += 5
    await first.cache.flush(Selector(all=True))
    clock.now += 5
    slow.cache.store(entry(2, created=clock.now))
    await slow.cache.follow()
    await slow.sql.close()
    assert await first.cache.find(key(1)) is None
    # what was stored after the flush is forgotten only by the memory that heard of it late
    found = await first.cache.find_many([key(1), key(2)])
    assert set(found) <= {key(2)}


async def test_a_process_does_not_follow_itself(processes: list[Process], clock: Clock) -> None:
    first = processes[0]
    clock.now += 5
    await first.cache.flush(Selector(all=True))
    clock.now += 1
    first.cache.store(entry(1, created=clock.now))
    await first.cache.follow()
    assert await first.cache.find(key(1)) is not None


async def test_flushes_from_before_the_start_are_history(processes: list[Process], clock: Clock) -> None:
    first = processes[0]
    await first.cache.flush(Selector(all=True))
    clock.now += 5
    late = Process(first.sql._database, clock, WriteLimits())
    late.memory.keep(entry(1))
    await late.cache.follow()
    assert late.memory.peek(key(1)) is not None


async def test_each_flush_is_followed_once(processes: list[Process], clock: Clock) -> None:
    first, second, _ = processes
    for _ in range(100):
        await first.cache.flush(Selector(model="x"))
    await second.cache.follow()
    await first.cache.flush(Selector(model="m"))
    await second.cache.follow()
    second.memory.keep(entry(1))
    await second.cache.follow()
    assert second.memory.peek(key(1)) is not None


async def test_a_dry_run_changes_nothing_anywhere(processes: list[Process], clock: Clock) -> None:
    first, second, _ = processes
    first.cache.store(entry(1))
    first.cache.remember(entry(2))
    second.memory.keep(entry(1))
    clock.now += 5
    assert (await first.cache.flush(Selector(all=True), dry_run=True)).entries == 2
    await second.cache.follow()
    assert first.cache.peek(key(1)) is not None
    assert second.cache.peek(key(1)) is not None


async def test_an_entry_looked_up_before_a_flush_is_not_promoted_after_it(processes: list[Process]) -> None:
    first, second, _ = processes
    first.cache.store(entry(1))
    await first.sql.drained()
    reached, release = asyncio.Event(), asyncio.Event()

    class Slow(SqlTier):
        async def get(self, key: bytes) -> Entry | None:
            found = await second.sql.get(key)
            reached.set()
            await release.wait()
            return found

    second.cache.back = Slow(second.sql._database, compress_from=0, clock=Clock(), on_fault=Faults())
    looking = asyncio.create_task(second.cache.find(key(1)))
    await reached.wait()
    await second.cache.flush(Selector(all=True))
    release.set()
    await looking
    assert second.memory.peek(key(1)) is None


async def test_lookup_finds_by_the_beginning_of_a_key(processes: list[Process]) -> None:
    first, second, _ = processes
    first.cache.store(entry(1))
    await first.sql.drained()
    beginning = key(1).hex()[:12]
    assert await first.cache.lookup(beginning) == entry(1)
    assert await second.cache.lookup(beginning) == entry(1)
    assert await second.cache.lookup("0" * 64) is None
    unfronted = Cache(None, first.sql, log=None, clock=Clock(), on_fault=Faults())
    for cache in (first.cache, unfronted, Cache(None, None, log=None, clock=Clock(), on_fault=Faults())):
        with pytest.raises(ValueError, match="hex"):
            await cache.lookup("xyz")
        with pytest.raises(ValueError, match="hex"):
            await cache.flush(Selector(prefix="xyz"))


async def test_a_flush_that_could_not_be_told_says_so(processes: list[Process]) -> None:
    first, _, _ = processes
    first.cache.store(entry(1))
    async with first.sql._database.write() as connection:
        await connection.execute(text("DROP TABLE cache_flushes"))
    assert (await first.cache.flush(Selector(all=True))).failed == ("sql",)
    assert await first.cache.find(key(1)) is None


async def test_opened_from_the_settings(sqlite: Database) -> None:
    async with open_cache(Settings(cache_max_size=2), sqlite, Faults()) as cache:
        for number in range(3):
            cache.store(entry(number, created=time.time(), expires=time.time() + 60))
        stats = await cache.stats()
        assert (list(stats), stats["memory"].entries) == (["memory", "sql"], 2)
        assert await cache.find(key(0)) is not None
    async with open_cache(Settings(), sqlite, Faults()) as cache:
        found = await cache.find_many([key(number) for number in range(3)])
        assert len(found) == 3


@pytest.mark.parametrize(
    ("sizes", "tiers"),
    [
        ({"cache_max_size": 0}, ["sql"]),
        ({"cache_max_bytes": 0}, ["sql"]),
        ({"cache_disk_bytes": 0}, ["memory"]),
        ({"cache_max_size": 0, "cache_disk_bytes": 0}, []),
    ],
)
async def test_a_tier_of_size_0_is_not_built(sqlite: Database, sizes: dict[str, Any], tiers: list[str]) -> None:
    async with open_cache(Settings(**sizes), sqlite, Faults()) as cache:
        assert list(await cache.stats()) == tiers
        cache.store(entry(1, expires=time.time() + 60))
        assert (await cache.find(key(1)) is not None) == bool(tiers)
        assert (await cache.flush(Selector(all=True))).entries == len(tiers)
        assert await cache.find(key(1)) is None


async def test_opened_the_cache_sweeps(sqlite: Database) -> None:
    gone = asyncio.Event()

    @event.listens_for(sqlite.engine.sync_engine, "after_cursor_execute")
    def look(connection: object, cursor: object, statement: str, *_: object) -> None:
        if statement.startswith("DELETE FROM cache_entries"):
            gone.set()

    async with open_cache(Settings(cache_sweep_seconds=0.01, cache_stale_hours=0), sqlite, Faults()) as cache:
        assert cache.back is not None
        cache.store(entry(1, created=time.time(), expires=time.time()))
        async with asyncio.timeout(20):
            while cache.back.peek(key(1)) or await cache.back.holds([key(1)]):
                gone.clear()
                await gone.wait()


async def test_opened_the_cache_follows(sqlite: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("llmproxy.cache.tiers._FOLLOW_SECONDS", 0.01)
    forgotten = asyncio.Event()

    class Watched(MemoryTier):
        def forget(self, selector: Selector) -> list[Entry]:
            gone = super().forget(selector)
            if gone:
                forgotten.set()
            return gone

    url = sqlite.engine.url.render_as_string(hide_password=False)
    async with open_cache(Settings(), sqlite, Faults()) as cache, open_database(url) as elsewhere:
        monkeypatch.setattr("llmproxy.cache.tiers.MemoryTier", Watched)
        async with open_cache(Settings(), elsewhere, Faults()) as other:
            other.remember(entry(1, expires=time.time() + 600))
            await cache.flush(Selector(all=True))
            async with asyncio.timeout(20):
                await forgotten.wait()
            assert other.peek(key(1)) is None


async def test_a_database_that_is_not_there_leaves_the_memory_tier(database_url: str) -> None:
    faults = Faults()
    url = (
        sqlite_url(Path("/proc/nowhere/x.db"))
        if database_url.startswith("sqlite")
        else "postgresql+asyncpg://u@/d?host=/nowhere"
    )
    async with open_database(url) as database, open_cache(Settings(), database, faults) as cache:
        cache.store(entry(1, expires=time.time() + 60))
        found = await cache.find(key(1))
        assert found is not None
        assert found[1] == "memory"
        assert await cache.find(key(2)) is None
    assert set(faults.kinds) == {"unreachable", "lost"}


async def test_what_was_flushed_while_it_was_made_is_not_kept() -> None:
    clock = Clock()
    tier = MemoryTier(10, 10**6, clock)
    cache = Cache(tier, None, log=None, clock=clock, on_fault=lambda tier, kind: None)
    clock.now += 100
    await cache.flush(Selector(model="swapped"))
    begun_before = entry(1, model="swapped", created=clock.now + 5, upstream_seconds=10.0)
    begun_after = entry(2, model="swapped", created=clock.now + 5, upstream_seconds=1.0)
    another = entry(3, model="other", created=clock.now + 5, upstream_seconds=10.0)
    for made in (begun_before, begun_after, another):
        cache.store(made)
    assert [made.key for made in tier] == [begun_after.key, another.key]


async def test_what_left_each_tier_is_known_without_asking_the_database(processes: list[Process]) -> None:
    process = processes[0]
    process.cache.store(entry(1))
    await process.sql.drained()
    await process.cache.flush(Selector(all=True))
    left = process.cache.evictions()
    assert (left["memory"]["flushed"], left["sql"]["flushed"]) == (1, 1)
    assert left == {name: stats.evictions for name, stats in (await process.cache.stats()).items()}
