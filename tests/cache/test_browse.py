"""Entries for people: pages, what they add up to, and a database that fails."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from llmproxy.cache.browse import AGES, SIZES, EntryBrowser, EntryQuery, EntrySummary
from llmproxy.cache.sql import SqlTier
from llmproxy.cache.tier import Selector
from llmproxy.database.engine import Database
from llmproxy.database.paging import cursor
from tests.cache.entries import Faults, entry, key
from tests.clock import Clock

NOW = 1_000_000.0
ALL = Selector(all=True)


@pytest.fixture
async def tier(database: Database) -> AsyncIterator[SqlTier]:
    async with SqlTier(database, compress_from=10**9, clock=Clock(NOW), on_fault=Faults()) as tier:
        yield tier


@pytest.fixture
def listing(database: Database, tier: SqlTier) -> EntryBrowser:
    return EntryBrowser(database, tier.drained, Clock(NOW))


async def walked(listing: EntryBrowser, wanted: EntryQuery) -> list[list[EntrySummary]]:
    """All pages, one after the other."""
    pages, after = [], wanted.after
    while True:
        page, after = await listing.page(EntryQuery(wanted.selector, wanted.limit, wanted.order, after))
        pages.append(page)
        if after is None:
            return pages


async def test_what_was_stored_a_moment_ago_is_listed_with_all_that_is_known(
    tier: SqlTier, listing: EntryBrowser
) -> None:
    tier.keep(entry(1, model="big", namespace="lab", tags=("a", "b c"), operation="completions", document=b"x" * 900))
    (row,) = (await listing.page(EntryQuery(ALL, 10)))[0]
    assert (row.key, row.endpoint, row.model, row.namespace) == (key(1).hex(), "completions", "big", "lab")
    assert row.tags == ["a", "b c"]
    assert (row.created, row.expires, row.used) == (NOW, NOW + 3600, NOW)
    assert 900 <= row.bytes < 1500


async def test_pages_hold_every_entry_once_the_newest_first(tier: SqlTier, listing: EntryBrowser) -> None:
    for number in range(7):
        tier.keep(entry(number))
        await tier.drained()
    pages = await walked(listing, EntryQuery(ALL, 3))
    assert [len(page) for page in pages] == [3, 3, 1]
    assert [row.key for page in pages for row in page] == [key(number).hex() for number in reversed(range(7))]


async def test_the_largest_first_with_many_of_one_size(tier: SqlTier, listing: EntryBrowser) -> None:
    sizes = [500, 100, 500, 500, 900, 100]
    for number, size in enumerate(sizes):
        tier.keep(entry(number, document=b"x" * size))
    pages = await walked(listing, EntryQuery(ALL, 2, "largest"))
    rows = [row for page in pages for row in page]
    assert [row.bytes for row in rows] == sorted((row.bytes for row in rows), reverse=True)
    assert {row.key for row in rows} == {key(number).hex() for number in range(6)}
    assert rows[0].key == key(4).hex()


@pytest.mark.parametrize(
    ("selector", "numbers"),
    [
        (Selector(model="big"), {0, 1}),
        (Selector(namespace=""), {1, 2}),
        (Selector(tags=("b",)), {0, 2}),
        (Selector(endpoint="chat", tags=("b",)), {2}),
        (Selector(prefix=key(1).hex()[:12]), {1}),
        (Selector(model="none such"), set()),
    ],
)
async def test_entries_are_chosen_as_a_flush_chooses_them(
    tier: SqlTier, listing: EntryBrowser, selector: Selector, numbers: set[int]
) -> None:
    tier.keep(entry(0, model="big", namespace="lab", tags=("a", "b"), operation="completions"))
    tier.keep(entry(1, model="big", tags=("ab",)))
    tier.keep(entry(2, tags=("b",)))
    rows, more = await listing.page(EntryQuery(selector, 10))
    assert {row.key for row in rows} == {key(number).hex() for number in numbers}
    assert more is None
    assert (await tier.flush(selector, dry_run=True)).entries == len(rows)


async def test_entries_are_added_up_by_what_they_share(tier: SqlTier, listing: EntryBrowser) -> None:
    tier.keep(entry(0, model="big", namespace="lab", tags=("a", "b"), created=NOW - 30))
    tier.keep(entry(1, model="big", tags=("a",), created=NOW - 2 * 3600, document=b"x" * 5000))
    tier.keep(entry(2, model="small", created=NOW - 90 * 86_400, document=b"x" * 5000))
    sums = await listing.sums()
    assert [(each.name, each.entries) for each in sums.models] == [("big", 2), ("small", 1)]
    assert [(each.name, each.entries) for each in sums.namespaces] == [("", 2), ("lab", 1)]
    assert [(each.name, each.entries) for each in sums.endpoints] == [("chat", 3)]
    assert [(each.name, each.entries) for each in sums.tags] == [("a", 2), ("b", 1)]
    assert [each.entries for each in sums.sizes] == [1, 0, 2, 0, 0, 0, 0]
    assert [each.entries for each in sums.ages] == [1, 0, 1, 0, 0, 0, 1]
    assert [each.below for each in sums.sizes] == [*SIZES, None]
    assert [each.below for each in sums.ages] == [*AGES, None]
    assert sum(each.bytes for each in sums.models) == (await tier.stats()).bytes
    assert sums.complete


async def test_sums_are_those_of_a_moment_ago_until_something_is_flushed(tier: SqlTier, listing: EntryBrowser) -> None:
    tier.keep(entry(0))
    before = await listing.sums()
    tier.keep(entry(1))
    assert await listing.sums() is before
    listing.forget()
    assert (await listing.sums()).models[0].entries == 2


async def test_an_empty_tier(listing: EntryBrowser) -> None:
    assert await listing.page(EntryQuery(ALL, 5, after=cursor([3]))) == ([], None)
    sums = await listing.sums()
    assert (sums.models, sums.tags, [each.entries for each in sums.sizes]) == ([], [], [0] * 7)


async def test_what_cannot_be_written_is_not_waited_for(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("llmproxy.cache.browse._SETTLE", 0.001)

    async def never() -> None:
        await asyncio.Event().wait()

    assert await EntryBrowser(database, never, Clock(NOW)).page(EntryQuery(ALL, 5)) == ([], None)
