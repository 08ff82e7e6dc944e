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
from llmproxy.cache.tier import Flushed, NullTier, Seal, Selector, Tier, TierStats
from llmproxy.cache.tiers import Cache
from llmproxy.database.engine import Database, open_database
from llmproxy.wire.vocabulary import Reason
from tests.cache.entries import Faults, entry, key, streamed
from tests.cache.shared import SharedTier
from tests.databases import PostgresServer, sqlite_url


class Stack:
    """The ``Cache`` with the face of a tier."""

    name = "stack"
    reason = Reason.TIER
    local = False
    reclaimed = 0

    def __init__(self, cache: Cache):
        self._cache = cache

    def peek(self, key: bytes) -> Entry | None:
        return self._cache.peek(key)

    touch = peek

    async def get(self, key: bytes) -> Entry | None:
        found = await self._cache.find(key)
        return found[0] if found else None

    async def get_many(self, keys: Sequence[bytes]) -> dict[bytes, Entry]:
        return await self._cache.find_many(keys)

    async def holds(self, keys: Sequence[bytes]) -> set[bytes]:
        return set(await self._cache.find_many(keys))

    async def lookup(self, prefix: str) -> Entry | None:
        return await self._cache.lookup(prefix)

    def keep(self, entry: Entry) -> None:
        self._cache.store(entry)

    def matching(self, selector: Selector) -> list[Entry]:
        return [entry for tier in self._cache.tiers for entry in tier.matching(selector)]

    def forget(self, selector: Selector) -> list[Entry]:
        return [entry for tier in self._cache.tiers for entry in tier.forget(selector)]

    async def flush(self, selector: Selector, *, dry_run: bool = False, seal: Seal | None = None) -> Flushed:
        return await self._cache.flush(selector, dry_run=dry_run)

    async def stats(self) -> TierStats:
        return list((await self._cache.stats()).values())[-1]

    def evictions(self) -> dict[str, int]:
        return list(self._cache.evictions().values())[-1]

    def local_keys(self) -> list[bytes]:
        return [key for tier in self._cache.tiers for key in tier.local_keys()]


class BrokenTier:
    """Breaks the contract: fails at every call."""

    name = "sql"
    reason = Reason.SQL
    local = False
    reclaimed = 0

    def _fail(self, *_: object, **__: object) -> NoReturn:
        raise RuntimeError("broken")

    async def _fail_later(self, *_: object, **__: object) -> NoReturn:
        raise RuntimeError("broken")

    keep = peek = touch = matching = forget = evictions = local_keys = _fail
    get = get_many = flush = stats = holds = lookup = _fail_later


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


#: the tiers by themselves, and stacks of them from the top down
SUBJECTS = ("memory", "sqlite", "postgresql", "shared", "memory+", "+sqlite", "memory+sqlite", "memory+shared+sqlite")


@pytest.fixture(params=SUBJECTS)
async def subject(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Subject]:
    names: list[str] = [name for name in request.param.split("+") if name]
    tiers: list[Tier] = []
    database, written = None, _never_waits
    async with AsyncExitStack() as stack:
        for name in names:
            if name == "memory":
                tiers.append(MemoryTier(1000, 10**8, time.time))
            elif name == "shared":
                tiers.append(SharedTier())
            else:
                url = sqlite_url(tmp_path / "x.db")
                if name == "postgresql":
                    server: PostgresServer = request.getfixturevalue("postgres")
                    url = server.create()
                database, sql = await _sql(stack, url)
                written = sql.drained
                tiers.append(sql)
        if "+" not in request.param:
            yield Subject(tiers[0], written)
            return
        log = None if database is None else FlushLog(database)
        yield Subject(Stack(Cache(tiers, log=log, clock=time.time, on_fault=Faults())), written)


def fresh(number: int, **fields: object) -> Entry:
    return entry(number, created=time.time(), expires=time.time() + 60, **fields)


async def test_what_was_put_is_got_at_once_and_after_it_was_written(subject: Subject) -> None:
    whole = replace(streamed(1, size=5000), expires=time.time() + 60)
    subject.tier.keep(whole)
    assert await subject.tier.get(key(1)) == whole
    await subject.written()
    assert await subject.tier.get(key(1)) == whole
    assert await subject.tier.get(key(2)) is None


async def test_large_entries(subject: Subject) -> None:
    large = fresh(1, document=bytes(range(256)) * 8000)
    subject.tier.keep(large)
    await subject.written()
    assert await subject.tier.get(key(1)) == large


async def test_the_last_put_wins(subject: Subject) -> None:
    for text in (b"first", b"second"):
        subject.tier.keep(fresh(1, document=text))
        await subject.written()
    subject.tier.keep(fresh(1, document=b"third"))
    subject.tier.keep(fresh(1, document=b"fourth"))
    for _ in range(2):
        found = await subject.tier.get(key(1))
        assert found is not None
        assert found.document == b"fourth"
        await subject.written()
    assert (await subject.tier.stats()).entries == 1


async def test_past_its_lifetime_an_entry_is_still_given(subject: Subject) -> None:
    stale = entry(1, expires=time.time() - 60)
    subject.tier.keep(stale)
    await subject.written()
    assert await subject.tier.get(key(1)) == stale


async def test_many_at_once(subject: Subject) -> None:
    some = {key(number): fresh(number) for number in range(0, 150, 2)}
    for each in some.values():
        subject.tier.keep(each)
    assert await subject.tier.get_many([key(number) for number in range(150)]) == some
    await subject.written()
    assert await subject.tier.get_many([key(number) for number in range(150)]) == some
    assert await subject.tier.get_many([]) == {}
    assert await subject.tier.get_many([key(0), key(0)]) == {key(0): some[key(0)]}


async def test_a_flush_removes_what_it_says_and_counts_each_entry_once(subject: Subject) -> None:
    for number in range(6):
        subject.tier.keep(fresh(number, model="a" if number < 4 else "b"))
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
    subject.tier.keep(fresh(1))
    await subject.written()
    subject.tier.keep(fresh(1, document=b"again"))
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
        subject.tier.keep(replace(fresh(number), created=1000.0 + number))
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
            subject.tier.keep(fresh(number, document=b"%d" % number * 500))
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
    memory = [MemoryTier(10, 10**6, time.time)] if with_memory else []
    cache = Cache([*memory, BrokenTier()], log=None, clock=time.time, on_fault=faults)
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
    assert cache.touch(key(1)) is None
    assert len(faults.kinds) >= 7


async def test_what_can_be_had_without_waiting_is_had_without_waiting(subject: Subject) -> None:
    """A tier that is local answers all so, and others what they answer at all."""
    tier = subject.tier
    tier.keep(fresh(1))
    if tier.local:
        assert tier.peek(key(1)) is not None
    for at_once in (tier.peek(key(1)), tier.touch(key(1))):
        assert at_once is None or at_once.document == fresh(1).document
    assert (tier.peek(key(1)) is not None) == (key(1) in tier.local_keys())
    assert tier.peek(key(2)) is tier.touch(key(2)) is None


async def test_an_entry_is_found_by_the_beginning_of_its_key(subject: Subject) -> None:
    subject.tier.keep(fresh(1))
    await subject.written()
    found = await subject.tier.lookup(key(1).hex()[:12])
    assert found is not None
    assert found.key == key(1)
    assert await subject.tier.lookup(key(2).hex()[:12]) is None
    with pytest.raises(ValueError, match="xyz"):
        await subject.tier.lookup("xyz")


async def test_which_keys_are_there(subject: Subject) -> None:
    subject.tier.keep(fresh(1))
    assert await subject.tier.holds([key(1), key(2)]) == {key(1)}
    await subject.written()
    assert await subject.tier.holds([key(2), key(1)]) == {key(1)}
    assert await subject.tier.holds([]) == set()


async def test_a_process_forgets_for_itself(subject: Subject) -> None:
    tier = subject.tier
    tier.keep(fresh(1, model="a"))
    tier.keep(fresh(2, model="b"))
    named = {entry.key for entry in tier.matching(Selector(model="a"))}
    assert named <= {key(1)}
    assert {entry.key for entry in tier.forget(Selector(model="a"))} == named
    assert tier.matching(Selector(model="a")) == []
    assert key(1) not in tier.local_keys()
    assert await tier.get(key(2)) is not None


async def test_a_null_tier_keeps_nothing() -> None:
    tier = NullTier()
    tier.keep(fresh(1))
    assert (tier.peek(key(1)), tier.touch(key(1)), await tier.get(key(1))) == (None, None, None)
    assert (await tier.get_many([key(1)]), await tier.holds([key(1)]), await tier.lookup("")) == ({}, set(), None)
    assert (tier.matching(Selector(all=True)), tier.forget(Selector(all=True)), tier.local_keys()) == ([], [], [])
    assert await tier.flush(Selector(all=True)) == Flushed()
    assert (await tier.stats(), tier.evictions(), tier.reclaimed) == (TierStats(0, 0, None, {}), {}, 0)


async def test_what_a_lower_tier_has_is_kept_in_those_above_it() -> None:
    memory, shared, below = MemoryTier(10, 10**6, time.time), SharedTier(), SharedTier()
    cache = Cache([memory, shared, below], log=None, clock=time.time, on_fault=Faults())
    below.keep(fresh(1))
    below.keep(entry(2, expires=time.time() - 60))
    assert (found := await cache.find(key(1))) is not None
    assert found[1] is Reason.TIER
    assert await shared.get(key(1)) is not None
    assert (found := await cache.find(key(1))) is not None
    assert found[1] is Reason.MEMORY
    assert await cache.find(key(2)) is not None
    assert (memory.peek(key(2)), await shared.get(key(2))) == (None, None), "past its lifetime"
