"""Bounds, order of eviction, memory used."""

import tracemalloc

import pytest

from llmproxy.cache.memory import MemoryTier
from llmproxy.cache.tier import Selector
from tests.cache.entries import entry, key, streamed
from tests.clock import Clock


def numbers(tier: MemoryTier) -> list[int]:
    return [number for number in range(100) if tier.peek(key(number)) is not None]


def test_the_least_recently_used_goes_first_and_peeking_is_no_use() -> None:
    tier = MemoryTier(3, 10_000, Clock())
    for number in range(3):
        tier.keep(entry(number))
    tier.touch(key(0))
    tier.peek(key(1))
    tier.keep(entry(3))
    assert numbers(tier) == [0, 2, 3]


async def test_bytes_are_bounded_exactly() -> None:
    tier = MemoryTier(100, 1000, Clock())
    for number in range(10):
        tier.keep(entry(number, document=b"x" * 300))
    stats = await tier.stats()
    assert (stats.entries, stats.bytes) == (3, 900)
    assert stats.evictions == {"size": 0, "bytes": 7, "expired": 0, "flushed": 0}
    tier.keep(entry(10, document=b"x" * 1000))
    stats = await tier.stats()
    assert (stats.entries, stats.bytes) == (1, 1000)


async def test_an_entry_that_is_too_large_is_not_kept_and_its_forerunner_goes() -> None:
    tier = MemoryTier(100, 1000, Clock())
    tier.keep(entry(1))
    tier.keep(entry(2))
    tier.keep(entry(1, document=b"x" * 1001))
    assert numbers(tier) == [2]
    assert (await tier.stats()).bytes == entry(2).size


def test_a_tier_without_room_for_entries_keeps_none() -> None:
    tier = MemoryTier(0, 1000, Clock())
    tier.keep(entry(1))
    assert numbers(tier) == []


async def test_replacing_counts_the_bytes_once() -> None:
    tier = MemoryTier(100, 1000, Clock())
    for size in (300, 100, 500):
        tier.keep(entry(1, document=b"x" * size))
    assert ((await tier.stats()).entries, (await tier.stats()).bytes) == (1, 500)


async def test_what_is_stale_stays_until_there_is_no_room() -> None:
    clock = Clock()
    tier = MemoryTier(2, 10_000, clock)
    tier.keep(entry(1, expires=clock.now + 10))
    clock.now += 20
    found = tier.touch(key(1))
    assert found is not None
    tier.keep(entry(2))
    tier.keep(entry(3))
    assert (await tier.stats()).evictions["expired"] == 1


async def test_the_oldest_is_told() -> None:
    tier = MemoryTier(10, 10_000, Clock())
    assert (await tier.stats()).oldest is None
    tier.keep(entry(1, created=5.0))
    tier.keep(entry(2, created=3.0))
    assert (await tier.stats()).oldest == 3.0


def test_words_that_many_entries_share_are_held_once() -> None:
    tier = MemoryTier(10, 10_000, Clock())
    for number in range(2):
        model = "".join(["smol", "lm"])
        tier.keep(entry(number, model=model, headers=((b"a", b"b%d" % 1),), tags=("".join(["t", "u"]),)))
    first, second = tier.peek(key(0)), tier.peek(key(1))
    assert first is not None
    assert second is not None
    assert first.model is second.model
    assert first.headers is second.headers
    assert first.tags is second.tags


def test_words_that_callers_make_up_do_not_fill_the_memory() -> None:
    tier = MemoryTier(1, 10_000, Clock())
    for number in range(5000):
        tier.keep(entry(number, namespace=f"n{number}"))
    assert len(tier._shared) <= 1024


@pytest.mark.parametrize(("plain", "allowed"), [(True, 500), (False, 600)])
def test_memory_over_the_stored_bytes(plain: bool, allowed: int) -> None:
    """Bytes per entry, in a tier of ten thousand. Streams have offsets and times of frames beside their bodies."""
    many = 10_000
    tracemalloc.start()
    tier = MemoryTier(many, 10**9, Clock())
    try:
        before, _ = tracemalloc.get_traced_memory()
        stored = 0
        for number in range(many):
            if plain:
                made = entry(number, created=number + 0.1, expires=number + 0.2, upstream_seconds=number + 0.3)
            else:
                made = streamed(number, size=20)
            stored += made.size
            tier.keep(made)
        after, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    each = (after - before - stored) / many
    assert each <= allowed


async def test_forgetting() -> None:
    tier = MemoryTier(10, 10_000, Clock())
    tier.keep(entry(1, model="a"))
    tier.keep(entry(2, model="b"))
    assert [gone.model for gone in tier.forget(Selector(model="a"))] == ["a"]
    stats = await tier.stats()
    assert (stats.entries, stats.bytes, stats.evictions["flushed"]) == (1, entry(2).size, 1)
