"""The cache: memory in front of SQL, and several processes on one database."""

import asyncio
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import event, insert, select, text

from llmproxy.cache.entry import Entry
from llmproxy.cache.flush_log import LEASE_SECONDS, FlushLog, Lease
from llmproxy.cache.memory import MemoryTier
from llmproxy.cache.sql import SqlTier
from llmproxy.cache.tables import processes as cache_processes
from llmproxy.cache.tier import Selector
from llmproxy.cache.tiers import Cache, open_cache
from llmproxy.config.settings import Settings
from llmproxy.database.engine import Database, open_database
from llmproxy.database.write_behind import WriteLimits
from llmproxy.runtime.background import Periodic
from llmproxy.runtime.process_id import process_id
from llmproxy.wire.vocabulary import Reason
from tests.cache.entries import Faults, entry, key
from tests.clock import Clock
from tests.databases import sqlite_url
from tests.timeouts import WAIT_SECONDS


class Process:
    """A cache as one process has it, on a database that it shares with others."""

    def __init__(self, database: Database, clock: Clock, limits: WriteLimits):
        self.database = database
        self.memory = MemoryTier(100, 10**6, clock)
        self.sql = SqlTier(
            database, compress_from=10**9, clock=clock, on_fault=Faults(), limits=limits, census_seconds=0
        )
        self.cache = Cache([self.memory, self.sql], log=FlushLog(database), clock=clock, on_fault=Faults())
        self.parted = asyncio.Event()
        self.cache.part = self.parted.set

    @asynccontextmanager
    async def following(self) -> AsyncIterator[None]:
        """Known to the others, and reading what they flush."""
        await self.cache.follow()
        async with Periodic("following", 0.005, self.cache.follow):
            yield


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
            await stack.enter_async_context(process.following())
            several.append(process)
        yield several


async def test_an_answer_of_one_process_is_a_hit_in_another(processes: list[Process]) -> None:
    first, second, _ = processes
    first.cache.store(entry(1))
    await first.sql.drained()
    assert await second.cache.find(key(1)) == (entry(1), Reason.SQL)
    assert await second.cache.find(key(1)) == (entry(1), Reason.MEMORY)
    assert second.cache.peek(key(1)) == entry(1)


async def test_what_is_past_its_lifetime_is_found_but_not_promoted(processes: list[Process], clock: Clock) -> None:
    first, second, _ = processes
    first.cache.store(entry(1))
    await first.sql.drained()
    clock.now += 10_000
    for _ in range(2):
        assert await second.cache.find(key(1)) == (entry(1), Reason.SQL)
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
    first.cache.tiers[0].keep(entry(1))
    await first.sql.drained()
    assert await first.cache.find(key(1)) == (entry(1), Reason.MEMORY)
    assert await second.cache.find(key(1)) is None


async def test_what_waits_can_be_peeked_at_without_memory(processes: list[Process], clock: Clock) -> None:
    cache = Cache([processes[2].sql], log=None, clock=clock, on_fault=Faults())
    cache.store(entry(1))
    assert cache.peek(key(1)) == entry(1)
    assert cache.touch(key(1)) is None, "that is for what is this process's alone"


async def test_a_flush_reaches_the_memory_of_the_others(processes: list[Process]) -> None:
    first, second, _ = processes
    for number, model in enumerate("aab"):
        first.cache.store(entry(number, model=model))
    await first.sql.drained()
    await second.cache.find_many([key(number) for number in range(3)])
    assert len(second.memory) == 3
    flushed = await first.cache.flush(Selector(model="a"))
    assert (flushed.entries, flushed.failed, flushed.unconfirmed) == (2, (), ())
    # not only soon: it had forgotten by the time the flush was over
    assert [kept.key for kept in second.memory] == [key(2)]
    assert await second.cache.find_many([key(number) for number in range(3)]) == {key(2): entry(2, model="b")}


async def test_a_flush_reaches_what_another_process_has_not_written_yet(processes: list[Process]) -> None:
    first, _, slow = processes
    slow.cache.store(entry(1))
    await first.cache.flush(Selector(all=True))
    assert slow.cache.peek(key(1)) is None
    slow.cache.store(entry(2))
    await slow.sql.close()
    found = await first.cache.find_many([key(1), key(2)])
    assert set(found) == {key(2)}


@pytest.mark.parametrize("who", [0, 1], ids=["in this process", "in another"])
@pytest.mark.parametrize(
    "selector",
    [
        Selector(all=True),
        Selector(key=key(1)),
        Selector(prefix=key(1).hex()[:10]),
        Selector(model="m"),
        Selector(namespace=""),
        Selector(endpoint="chat"),
        Selector(tags=("red",)),
        Selector(created_before=0.0, older_than=0.0),
        Selector(model="m", created_before=0.0, older_than=0.0),
    ],
    ids=repr,
)
async def test_what_was_begun_before_a_flush_is_kept_nowhere(
    processes: list[Process], who: int, selector: Selector
) -> None:
    """However long it takes, and whatever the entry says of its times."""
    first = processes[0]
    begun = first.cache.position()
    await processes[who].cache.flush(selector)
    assert first.parted.is_set()
    first.cache.store(entry(1, tags=("red", "blue"), created=9e9, upstream_seconds=0.0), begun)
    first.cache.store(entry(2, model="n", operation="embeddings", namespace="x"), first.cache.position())
    await first.sql.drained()
    for process in processes:
        found = await process.cache.find_many([key(1), key(2)])
        assert set(found) == {key(2)}


async def test_a_flush_of_the_old_leaves_young_calls_alone(processes: list[Process]) -> None:
    first, second, _ = processes
    begun = first.cache.position()
    await second.cache.flush(Selector(created_before=time.time() - 3600, older_than=3600.0))
    first.cache.store(entry(1), begun)
    await first.sql.drained()
    assert await second.cache.find(key(1)) is not None


async def test_a_store_on_its_way_is_refused_by_the_database_itself(database_url: str, clock: Clock) -> None:
    """A process that does not follow at all: its memory is its own affair, its rows are everybody's."""
    async with open_database(database_url) as mine, open_database(database_url) as theirs:
        await mine.verify()
        await theirs.verify()
        late, other = Process(mine, clock, WriteLimits(linger=0.001)), Process(theirs, clock, WriteLimits())
        await late.cache.follow()
        await late.cache.leave()
        begun = late.cache.position()
        await other.cache.flush(Selector(model="m"))
        async with late.sql:
            late.cache.store(entry(1), begun)
            late.cache.store(entry(2, model="n"), begun)
            await late.sql.drained()
        assert set(await other.cache.find_many([key(1), key(2)])) == {key(2)}


async def test_a_row_that_was_read_before_a_flush_is_not_served_after_it(processes: list[Process]) -> None:
    first, second, _ = processes
    first.cache.store(entry(1))
    await first.sql.drained()
    found = await second.cache.find(key(1))
    assert found is not None
    since = second.cache.position()
    assert second.cache.still_holds(found[0], since)
    await first.cache.flush(Selector(model="another"))
    assert second.cache.still_holds(found[0], since)
    await first.cache.flush(Selector(model="m"))
    assert not second.cache.still_holds(found[0], since)


async def test_a_flush_waits_for_a_process_that_is_late(
    database_url: str, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with open_database(database_url) as mine, open_database(database_url) as theirs:
        await mine.verify()
        await theirs.verify()
        first, late = Process(mine, clock, WriteLimits()), Process(theirs, clock, WriteLimits())
        await first.cache.follow()
        await late.cache.follow()
        late.memory.keep(entry(1))
        flush = asyncio.create_task(first.cache.flush(Selector(all=True)))
        async with asyncio.timeout(WAIT_SECONDS):
            await first.parted.wait()
        assert not flush.done()
        await late.cache.follow()
        assert (await flush).unconfirmed == ()
        assert len(late.memory) == 0
        # one that never comes is told of
        monkeypatch.setattr("llmproxy.cache.flush_log._CONFIRM_SECONDS", 0.05)
        assert len((await first.cache.flush(Selector(all=True))).unconfirmed) == 1
        await late.cache.leave()
        assert (await first.cache.flush(Selector(all=True))).unconfirmed == ()


def ended_process() -> str:
    place, _, start, rest = process_id().rsplit(":", 3)
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    return f"{place}:{ended.pid}:{start}:{rest}"


async def test_a_process_that_died_is_not_waited_for(processes: list[Process]) -> None:
    first = processes[0]
    async with first.sql._database.write() as connection:
        await connection.execute(insert(cache_processes).values(name=ended_process(), seen=0, beat=0))
    assert (await first.cache.flush(Selector(all=True))).unconfirmed == ()
    async with first.sql._database.read() as connection:
        names = (await connection.execute(select(cache_processes.c.name))).scalars().all()
    assert len(names) == len(processes)


async def test_who_has_missed_too_many_flushes_forgets_everything(
    processes: list[Process], monkeypatch: pytest.MonkeyPatch
) -> None:
    first = processes[0]
    monkeypatch.setattr("llmproxy.cache.flush_log.KEEP_LINES", 2)
    before = first.cache.position()
    for _ in range(5):
        await first.cache.flush(Selector(model="x"))
    old = replace(before, epoch=first.cache.position().epoch)
    first.sql.keep(replace(entry(1), begun=old))
    first.sql.keep(replace(entry(2), begun=first.cache.position()))
    await first.sql.drained()
    assert await first.sql.holds([key(1), key(2)]) == {key(2)}


def test_a_lease_is_lost_by_standing_still_and_not_by_a_database_that_fails() -> None:
    clock = Clock()
    lease = Lease(clock)
    for _ in range(5):
        clock.now += LEASE_SECONDS - 1
        lease.fail(lost=False)
        assert lease.stands
    clock.now += LEASE_SECONDS
    assert (lease.stood_still, lease.stands) == (True, False)
    lease.fail(lost=False)
    assert (lease.stood_still, lease.stands) == (False, False)
    lease.renew()
    stands = [lease.stands]
    lease.fail(lost=True)
    assert [*stands, lease.stands] == [True, False]


async def test_without_its_lease_a_process_answers_nothing_until_it_has_read_the_log(
    database_url: str, clock: Clock
) -> None:
    async with open_database(database_url) as mine, open_database(database_url) as theirs:
        await mine.verify()
        await theirs.verify()
        still, other = Process(mine, clock, WriteLimits()), Process(theirs, clock, WriteLimits())
        await still.cache.follow()
        for number, model in enumerate("ab"):
            still.memory.keep(entry(number, model=model))
        still.cache._lease._attended -= LEASE_SECONDS
        still.cache._lease.until -= LEASE_SECONDS
        async with theirs.write() as connection:
            await FlushLog(theirs).write(connection, Selector(model="a"))
        assert still.cache.peek(key(1)) is None
        assert still.cache.touch(key(1)) is None
        assert await still.cache.find(key(0)) is None
        assert await still.cache.find(key(1)) is not None
        assert still.cache.peek(key(1)) is not None
        assert other.cache.is_current


async def test_flushes_are_followed_once(processes: list[Process]) -> None:
    first, second, _ = processes
    for _ in range(100):
        await first.cache.flush(Selector(model="x"))
    await first.cache.flush(Selector(model="m"))
    for process in (first, second):
        process.memory.keep(entry(1))
        await process.cache.follow()
        assert process.memory.peek(key(1)) is not None


async def test_a_dry_run_changes_nothing_anywhere(processes: list[Process]) -> None:
    first, second, _ = processes
    first.cache.store(entry(1))
    first.cache.tiers[0].keep(entry(2))
    second.memory.keep(entry(1))
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

    slow = Slow(second.database, compress_from=0, clock=Clock(), on_fault=Faults())
    cache = Cache([second.memory, slow], log=FlushLog(second.database), clock=Clock(), on_fault=Faults())
    looking = asyncio.create_task(cache.find(key(1)))
    await reached.wait()
    await cache.flush(Selector(all=True))
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
    unfronted = Cache([first.sql], log=None, clock=Clock(), on_fault=Faults())
    for cache in (first.cache, unfronted, Cache([], log=None, clock=Clock(), on_fault=Faults())):
        with pytest.raises(ValueError, match="hex"):
            await cache.lookup("xyz")
        with pytest.raises(ValueError, match="hex"):
            await cache.flush(Selector(prefix="xyz"))


async def test_a_flush_that_could_not_be_told_says_so(processes: list[Process]) -> None:
    # the one that does not write what waits: a row would be left, since it cannot be deleted
    _, _, third = processes
    third.cache.store(entry(1))
    async with third.database.write() as connection:
        await connection.execute(text("DROP TABLE cache_flushes"))
    assert (await third.cache.flush(Selector(all=True))).failed == ("sql",)
    assert await third.cache.find(key(1)) is None


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
        _, sql = cache.tiers
        cache.store(entry(1, created=time.time(), expires=time.time()))
        async with asyncio.timeout(WAIT_SECONDS):
            while sql.peek(key(1)) or await sql.holds([key(1)]):
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
            other.tiers[0].keep(entry(1, expires=time.time() + 600))
            await cache.flush(Selector(all=True))
            async with asyncio.timeout(WAIT_SECONDS):
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
    cache = Cache([tier], log=None, clock=clock, on_fault=lambda tier, kind: None)
    before = cache.position()
    await cache.flush(Selector(model="swapped"))
    cache.store(entry(1, model="swapped"), before)
    cache.store(entry(2, model="swapped"), cache.position())
    cache.store(entry(3, model="other"), before)
    assert [made.key for made in tier] == [key(2), key(3)]
    # longer ago than flushes are remembered
    for _ in range(2000):
        await cache.flush(Selector(model="nobody's"))
    cache.store(entry(4, model="other"), before)
    assert tier.peek(key(4)) is None


async def test_what_left_each_tier_is_known_without_asking_the_database(processes: list[Process]) -> None:
    process = processes[0]
    process.cache.store(entry(1))
    await process.sql.drained()
    await process.cache.flush(Selector(all=True))
    left = process.cache.evictions()
    assert (left["memory"]["flushed"], left["sql"]["flushed"]) == (1, 1)
    assert left == {name: stats.evictions for name, stats in (await process.cache.stats()).items()}
