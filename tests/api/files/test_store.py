"""The rows of files, on every database."""

import asyncio
from dataclasses import replace
from typing import Any

import pytest

from llmproxy.api import file_rows as rows
from llmproxy.api.file_model import FileQuery, file_object, new_id
from llmproxy.database.engine import Database
from llmproxy.jobs.model import File
from llmproxy.jobs.store import Store

NOW = 1_800_000_000.5


@pytest.fixture
def store(database: Database) -> Store:
    return Store(database)


def file(**members: Any) -> File:
    usual = {"scope": "", "purpose": "batch", "filename": "in.jsonl", "bytes": 7, "sha256": "ab", "created_at": NOW}
    return File(**{"id": new_id(), **usual, **members})


async def fill(store: Store, number: int, **members: Any) -> list[File]:
    """Files of which some were made at the same moment, oldest first."""
    made = [file(created_at=NOW - number + at // 3, **members) for at in range(number)]
    for each in made:
        await rows.put(store, each)
    return sorted(made, key=lambda each: (each.created_at, each.id))


async def paged(store: Store, wanted: FileQuery, now: float = NOW) -> list[File]:
    """All pages, one after the other."""
    found: list[File] = []
    while True:
        page, more = await rows.page(store, wanted, now)
        found += page
        assert more <= (len(page) == wanted.limit)
        if not more:
            return found
        wanted = replace(wanted, after=page[-1].id)


async def test_what_was_put_is_got(store: Store) -> None:
    whole = file(scope="ann", filename="日本.jsonl", bytes=2**40, expires_at=NOW + 1, idempotency_key="k")
    assert await rows.put(store, whole) == whole
    assert await rows.get(store, whole.id, "ann", NOW) == whole
    assert await rows.get(store, whole.id, "bob", NOW) is None
    assert await rows.get(store, new_id(), "ann", NOW) is None


async def test_what_has_expired_is_not_there(store: Store) -> None:
    short = file(expires_at=NOW + 10)
    await rows.put(store, short)
    assert await rows.get(store, short.id, "", NOW + 9.9) == short
    assert await rows.get(store, short.id, "", NOW + 10) is None
    assert await rows.page(store, FileQuery(""), NOW + 9.9) == ([short], False)
    assert await rows.page(store, FileQuery(""), NOW + 10) == ([], False)
    assert await rows.remove(store, rows.of_caller(short.id, "", NOW + 10), 1) == ([], set())


@pytest.mark.parametrize("newest_first", [True, False])
@pytest.mark.parametrize("limit", [1, 2, 4, 100])
async def test_pages_make_the_whole_list(store: Store, newest_first: bool, limit: int) -> None:
    made = await fill(store, 10)
    await fill(store, 3, scope="bob")
    assert (
        await paged(store, FileQuery("", limit=limit, newest_first=newest_first)) == made[:: -1 if newest_first else 1]
    )


async def test_a_list_of_one_purpose(store: Store) -> None:
    await fill(store, 4)
    made = await fill(store, 4, purpose="user_data")
    assert await paged(store, FileQuery("", "user_data", limit=2, newest_first=False)) == made


async def test_an_unknown_after_ends_the_list(store: Store) -> None:
    others = await fill(store, 3, scope="bob")
    await fill(store, 3)
    for after in (new_id(), others[1].id):
        assert await rows.page(store, FileQuery("", after=after), NOW) == ([], False)


async def test_the_same_key_gives_the_first_file(store: Store) -> None:
    first = await rows.put(store, file(idempotency_key="k"))
    assert await rows.put(store, file(idempotency_key="k", bytes=8)) == first
    assert await rows.page(store, FileQuery(""), NOW) == ([first], False)
    other = file(idempotency_key="k", scope="bob")
    assert await rows.put(store, other) == other


async def test_of_many_at_once_with_the_same_key_one_wins(store: Store) -> None:
    kept = await asyncio.gather(*(rows.put(store, file(idempotency_key="k")) for _ in range(8)))
    assert len({each.id for each in kept}) == 1


async def test_the_key_of_an_expired_file_is_free(store: Store) -> None:
    await rows.put(store, file(idempotency_key="k", expires_at=NOW + 10))
    later = file(idempotency_key="k", created_at=NOW + 10)
    assert await rows.put(store, later) == later


async def test_remove_takes_no_more_than_it_may(store: Store) -> None:
    await fill(store, 5, expires_at=NOW)
    kept = (await fill(store, 2))[0]
    sizes = [len((await rows.remove(store, rows.expired(NOW), 2))[0]) for _ in range(4)]
    assert sizes == [2, 2, 1, 0]
    assert await rows.get(store, kept.id, "", NOW) == kept


async def test_only_the_owner_removes(store: Store) -> None:
    mine = await rows.put(store, file(scope="ann"))
    assert await rows.remove(store, rows.of_caller(mine.id, "bob", NOW), 1) == ([], set())
    assert await rows.remove(store, rows.of_caller(mine.id, "ann", NOW), 1) == ([mine.id], set())


def test_the_document() -> None:
    shown = file_object(file(id="file-a1", expires_at=NOW + 3600))
    assert shown == {
        "id": "file-a1",
        "object": "file",
        "bytes": 7,
        "created_at": 1_800_000_000,
        "expires_at": 1_800_003_600,
        "filename": "in.jsonl",
        "purpose": "batch",
        "status": "processed",
        "status_details": None,
    }
    assert file_object(file())["expires_at"] is None
