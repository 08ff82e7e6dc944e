"""The bounds of the SQL tier."""

import hashlib
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select

from llmproxy.cache.sql import SqlTier
from llmproxy.cache.sweep import Sweep, Swept
from llmproxy.cache.tables import entries
from llmproxy.database.engine import Database
from llmproxy.database.write_behind import WriteLimits
from tests.cache.entries import Faults, entry, key
from tests.clock import Clock


class Bench:
    """A tier on a database with a clock, and what sweeps it."""

    def __init__(self, database: Database, tier: SqlTier, clock: Clock):
        self.database, self.tier, self.clock = database, tier, clock
        self.in_use: list[bytes] = []

    def sweep(self, max_bytes: int = 10**9, stale_seconds: float = 0.0) -> Sweep:
        return Sweep(
            self.database,
            self.tier,
            max_bytes=max_bytes,
            in_use=lambda: self.in_use,
            clock=self.clock,
            stale_seconds=stale_seconds,
        )

    async def left(self) -> list[int]:
        async with self.database.read() as connection:
            kept = set((await connection.execute(select(entries.c.key))).scalars())
        return [number for number in range(2000) if key(number) in kept]


def length(file: Path) -> int:
    return file.stat().st_size


@pytest.fixture
async def bench(database: Database) -> AsyncIterator[Bench]:
    clock = Clock()
    limits = WriteLimits(linger=0.001)
    tier = SqlTier(database, compress_from=10**9, clock=clock, on_fault=Faults(), limits=limits, census_seconds=0)
    async with tier:
        yield Bench(database, tier, clock)


async def test_the_expired_go_chunk_by_chunk(bench: Bench) -> None:
    for number in range(1000):
        bench.tier.keep(entry(number, expires=bench.clock.now + (10 if number < 700 else 100)))
    await bench.tier.drained()
    assert await bench.sweep()() == Swept()
    bench.clock.now += 10
    swept = await bench.sweep()()
    assert (swept.expired, swept.evicted) == (700, 0)
    assert swept.bytes > 700 * 10
    assert await bench.left() == list(range(700, 1000))
    assert (await bench.tier.stats()).evictions["expired"] == 700


async def test_the_stale_are_kept_as_long_as_one_wants(bench: Bench) -> None:
    bench.tier.keep(entry(1, expires=bench.clock.now))
    await bench.tier.drained()
    bench.clock.now += 50
    assert (await bench.sweep(stale_seconds=60)()).expired == 0
    bench.clock.now += 10
    assert (await bench.sweep(stale_seconds=60)()).expired == 1


async def test_over_the_cap_the_least_recently_used_go(bench: Bench) -> None:
    for number in range(10):
        bench.clock.now += 1
        bench.tier.keep(entry(number, document=b"x" * 10_000, expires=bench.clock.now + 10**6))
        await bench.tier.drained()
    bench.clock.now += 1000
    for number in (0, 3):
        await bench.tier.get(key(number))
    await bench.tier.drained()
    size = (await bench.tier.stats()).bytes
    swept = await bench.sweep(max_bytes=size // 2)()
    assert swept.evicted == 5
    assert await bench.left() == [0, 3, 7, 8, 9]
    stats = await bench.tier.stats()
    assert stats.bytes <= size // 2
    assert stats.evictions["bytes"] == 5
    assert (await bench.sweep(max_bytes=size // 2)()).evicted == 0


async def test_what_memory_answers_counts_as_used(bench: Bench) -> None:
    for number in range(4):
        bench.clock.now += 1
        bench.tier.keep(entry(number, document=b"x" * 10_000, expires=bench.clock.now + 10**6))
        await bench.tier.drained()
    bench.clock.now += 1000
    bench.in_use = [key(0), key(77)]
    await bench.sweep(max_bytes=25_000)()
    assert await bench.left() == [0, 3]


async def test_not_many_more_go_than_must(bench: Bench) -> None:
    for number in range(1500):
        bench.tier.keep(entry(number, document=b"x" * (100 + number % 7), expires=bench.clock.now + 10**6))
    await bench.tier.drained()
    size = (await bench.tier.stats()).bytes
    swept = await bench.sweep(max_bytes=size - 50_000)()
    assert 50_000 <= swept.bytes < 51_500


async def test_a_cap_smaller_than_any_entry_empties_the_tier(bench: Bench) -> None:
    for number in range(5):
        bench.tier.keep(entry(number, expires=bench.clock.now + 10**6))
    await bench.tier.drained()
    assert (await bench.sweep(max_bytes=1)()).evicted == 5
    assert await bench.left() == []


async def test_the_file_gets_shorter_by_what_is_reported(sqlite: Database, sqlite_file: Path) -> None:
    clock = Clock()
    tier = SqlTier(sqlite, compress_from=10**9, clock=clock, on_fault=Faults(), limits=WriteLimits(linger=0.001))
    async with tier:
        for number in range(100):
            tier.keep(entry(number, document=b"x" * 100_000))
        await tier.drained()
        clock.now += 10**6
        sweep = Sweep(sqlite, tier, max_bytes=10**9, in_use=list, clock=clock)
        full = await sqlite.size()
        swept = await sweep()
        assert swept.reclaimed == tier.reclaimed == full - await sqlite.size() > 9_000_000
        assert length(sqlite_file) == await sqlite.size()


LARGE: dict[str, Callable[[int], dict[str, Any]]] = {
    "answers of a few bytes": lambda number: {},
    "answers of half a page and more": lambda number: {"document": hashlib.sha256(b"%d" % number).digest() * 140},
    "large answers": lambda number: {"document": hashlib.sha256(b"%d" % number).digest() * 2000},
    "long names": lambda number: {"model": f"m{number}" + "m" * 480, "namespace": f"n{number}" + "n" * 480},
    "long tags": lambda number: {"tags": tuple(f"{tag} {number} " + "t" * 50 for tag in range(15))},
}


@pytest.mark.parametrize("kind", LARGE)
async def test_the_bound_is_of_what_the_file_takes(sqlite: Database, sqlite_file: Path, kind: str) -> None:
    """Whatever it is that makes it large: bodies, names, tags, or the number of rows."""
    limit, clock = 1_500_000, Clock()
    limits = WriteLimits(linger=0.001)
    async with SqlTier(sqlite, compress_from=10**9, clock=clock, on_fault=Faults(), limits=limits) as tier:
        sweep = Sweep(sqlite, tier, max_bytes=limit, in_use=list, clock=clock)
        early: list[bool] = []
        sweep.wake = lambda: early.append(True)
        for part in range(8):
            for number in range(part * 500, part * 500 + 500):
                tier.keep(entry(number, **LARGE[kind](number)))
            await tier.drained()
            await sweep()
        # it does not wait for its time where so much was written
        assert early
        assert (await tier.stats()).entries > 10
    assert length(sqlite_file) < 1.5 * limit + 400_000
