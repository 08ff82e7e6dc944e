"""What every cache tier promises, on each of them and on the stack of them, with a broken one in it too."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack
from dataclasses import replace
from pathlib import Path
from typing import NoReturn

import pytest

from llmproxy.cache.entry import Entry
from llmproxy.cache.flush_log import FlushLog
from llmproxy.cache.memory import MemoryTier
from llmproxy.cache.sql import SqlTier
from llmproxy.cache.tier import Flushed, Selector, Tier, TierStats
from llmproxy.cache.tiers import Cache
from llmproxy.database.engine import Database, open_database
from tests.cache.entries import Faults, entry, key, streamed
from tests.databases import PostgresServer, sqlite_url


class Stack:
    """The ``Cache`` with the face of a tier."""

    name = "stack"

    def __init__(self, cache: Cache):
        self._cache = cache

    async def get(self, key: bytes) -> Entry | None:
        found = await self._cache.find(key)
        return found[0] if found else None

    async def get_many(self, keys: Sequence[bytes]) -> dict[bytes, Entry]:
        return await self._cache.find_many(keys)

    async def put(self, entry: Entry) -> None:
        self._cache.store(entry)

    async def flush(self, selector: Selector, *, dry_run: bool = False) -> Flushed:
        return await self._cache.flush(selector, dry_run=dry_run)

    async def stats(self) -> TierStats:
        return list((await self._cache.stats()).values())[-1]

    async def close(self) -> None:
        """Whoever opened the tiers closes them."""


class BrokenTier:
    """Breaks the contract: fails at every call."""

    name = "sql"

    def _fail(self, *_: object, **__: object) -> NoReturn:
        raise RuntimeError("broken")

    async def _fail_later(self, *_: object, **__: object) -> NoReturn:
        raise RuntimeError("broken")

    keep = peek = forget = evictions = _fail
    get = get_many = put = flush = stats = close = holds = lookup = _fail_later


async def _never_waits() -> None:
    """Nothing is written behind."""


class Subject:
    """A tier, and how to wait until what it was given is written."""

    def __init__(self, tier: Tier, written: Callable[[], Awaitable[None]] = _never_waits):
        self.tier = tier
        self.written = written


async def _sql(stack: AsyncExitStack, url: str) -> tuple[Database, SqlTier]:
    database = await stack.enter_async_context(open_database(url))
    await database.verify()
    tier = SqlTier(database, compress_from=1024, clock=time.time, on_fault=Faults(), census_seconds=0)
    return database, await stack.enter_async_context(tier)


@pytest.fixture(params=["memory", "sqlite", "postgresql", "stack", "stack without memory", "stack without sql"])
async def subject(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Subject]:
    memory = MemoryTier(1000, 10**8, time.time)
    async with AsyncExitStack() as stack:
        if request.param == "memory":
            yield Subject(memory)
            return
        if request.param == "stack without sql":
            yield Subject(Stack(Cache(memory, None, log=None, clock=time.time, on_fault=Faults())))
            return
        url = sqlite_url(tmp_path / "x.db")
        if request.param == "postgresql":
            server: PostgresServer = request.getfixturevalue("postgres")
            url = server.create()
        database, sql = await _sql(stack, url)
        if request.param in ("sqlite", "postgresql"):
            yield Subject(sql, sql.drained)
            return
        front = memory if request.param == "stack" else None
        cache = Cache(front, sql, log=FlushLog(database), clock=time.time, on_fault=Faults())
        yield Subject(Stack(cache), sql.drained)


def fresh(number: int, **fields: object) -> Entry:
    return entry(number, created=time.time(), expires=time.time() + 60, **fields)


async def test_what_was_put_is_got_at_once_and_after_it_was_written(subject: Subject) -> None:
    whole = replace(streamed(1, size=5000), expires=time.time() + 60)
    await subject.tier.put(whole)
    assert await subject.tier.get(key(1)) == whole
    await subject.written()
    assert await subject.tier.get(key(1)) == whole
    assert await subject.tier.get(key(2)) is None


async def test_large_entries(subject: Subject) -> None:
    large = fresh(1, document=bytes(range(256)) * 8000)
    await subject.tier.put(large)
    await subject.written()
    assert await subject.tier.get(key(1)) == large


async def test_the_last_put_wins(subject: Subject) -> None:
    for text in (b"first", b"second"):
        await subject.tier.put(fresh(1, document=text))
        await subject.written()
    await subject.tier.put(fresh(1, document=b"third"))
    await subject.tier.put(fresh(1, document=b"fourth"))
    for _ in range(2):
        found = await subject.tier.get(key(1))
        assert found is not None
        assert found.document == b"fourth"
        await subject.written()
    assert (await subject.tier.stats()).entries == 1


async def test_past_its_lifetime_an_entry_is_still_given(subject: Subject) -> None:
    stale = entry(1, expires=time.time() - 60)
    await subject.tier.put(stale)
    await subject.written()
    assert await subject.tier.get(key(1)) == stale


async def test_many_at_once(subject: Subject) -> None:
    some = {key(number): fresh(number) for number in range(0, 150, 2)}
    for each in some.values():
        await subject.tier.put(each)
    assert await subject.tier.get_many([key(number) for number in range(150)]) == some
    await subject.written()
    assert await subject.tier.get_many([key(number) for number in range(150)]) == some
    assert await subject.tier.get_many([]) == {}
    assert await subject.tier.get_many([key(0), key(0)]) == {key(0): some[key(0)]}


async def test_a_flush_removes_what_it_says_and_counts_each_entry_once(subject: Subject) -> None:
    for number in range(6):
        await subject.tier.put(fresh(number, model="a" if number < 4 else "b"))
        if number == 2:
            await subject.written()
    would = await subject.tier.flush(Selector(model="a"), dry_run=True)
    assert would.entries == 4
    assert would.bytes > 0
    assert await subject.tier.get(key(0)) is not None
    done = await subject.tier.flush(Selector(model="a"))
    assert (done.entries, done.failed) == (4, ())
    await subject.written()
    left = await subject.tier.get_many([key(number) for number in range(6)])
    assert sorted(left) == sorted([key(4), key(5)])
    assert await subject.tier.flush(Selector(model="a")) == Flushed()


async def test_a_flush_of_a_rewritten_entry_counts_it_once(subject: Subject) -> None:
    await subject.tier.put(fresh(1))
    await subject.written()
    await subject.tier.put(fresh(1, document=b"again"))
    assert (await subject.tier.flush(Selector(all=True), dry_run=True)).entries == 1
    assert (await subject.tier.flush(Selector(all=True))).entries == 1
    await subject.written()
    assert await subject.tier.get(key(1)) is None


async def test_what_is_not_there_is_flushed_silently(subject: Subject) -> None:
    assert await subject.tier.flush(Selector(key=key(1))) == Flushed()
    assert await subject.tier.flush(Selector()) == Flushed()


async def test_stats(subject: Subject) -> None:
    assert (await subject.tier.stats()).oldest is None
    for number in range(3):
        await subject.tier.put(replace(fresh(number), created=1000.0 + number))
    await subject.written()
    stats = await subject.tier.stats()
    assert (stats.entries, stats.oldest) == (3, 1000.0)
    assert stats.bytes > 0
    await subject.tier.flush(Selector(key=key(0)))
    stats = await subject.tier.stats()
    assert (stats.entries, stats.oldest, stats.evictions["flushed"]) == (2, 1001.0, 1)


async def test_many_tasks_at_once(subject: Subject) -> None:
    """No interleaving gives an entry that was not put, or half of one."""

    async def work(worker: int) -> None:
        for turn in range(20):
            number = (worker * 7 + turn) % 10
            await subject.tier.put(fresh(number, document=b"%d" % number * 500))
            found = await subject.tier.get(key(number))
            assert found is None or found.document == b"%d" % number * 500
            if turn % 9 == 0:
                await subject.tier.flush(Selector(key=key(number)))

    await asyncio.gather(*(work(worker) for worker in range(8)))
    await subject.written()
    await subject.tier.flush(Selector(all=True))
    assert await subject.tier.get_many([key(number) for number in range(10)]) == {}


@pytest.mark.parametrize("with_memory", [True, False])
async def test_a_broken_tier_in_the_stack_is_a_miss(with_memory: bool) -> None:
    faults = Faults()
    memory = MemoryTier(10, 10**6, time.time) if with_memory else None
    cache = Cache(memory, BrokenTier(), log=None, clock=time.time, on_fault=faults)
    assert await cache.find(key(1)) is None
    assert await cache.find_many([key(1)]) == {}
    assert cache.peek(key(1)) is None
    assert await cache.lookup("ab") is None
    cache.store(fresh(1))
    found = await cache.find(key(1))
    assert (found is not None) == with_memory
    flushed = await cache.flush(Selector(all=True))
    assert (flushed.entries, flushed.failed) == (int(with_memory), ("sql",))
    assert (await cache.stats())["sql"].entries == 0
    assert len(faults.kinds) >= 7
