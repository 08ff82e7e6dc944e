"""Pages of exchanges, on every kind of database, against a plain search through a list."""

import random
from dataclasses import replace
from typing import Any

import pytest
from sqlalchemy import event, text

from llmproxy.database.engine import Database
from llmproxy.database.paging import cursor
from llmproxy.history import search
from llmproxy.history.search import HistoryCursor, HistoryQuery, page
from llmproxy.history.text_index import Texts
from llmproxy.wire.errors import BadRequest
from llmproxy.wire.exchange import Exchange, Usage
from llmproxy.wire.vocabulary import CacheStatus
from tests.history.exchanges import fetched
from tests.history.keeping import followed, write

ROWS = 700


def exchanges() -> list[Exchange]:
    """Of a few users, models and so on; some began at the same moment, some ended in another order."""
    chance = random.Random(7)
    return [
        fetched(
            request_id=str(number),
            started_at=1_700_000_000.0 + number // 3 - chance.choice([0, 0, 0, 40]),
            user=chance.choice(["ann", "bob", "rare"] if number % 50 == 0 else ["ann", "bob"]),
            session=chance.choice(["s1", "s2", ""]),
            model=chance.choice(["m1", "m2"]),
            endpoint=chance.choice(["chat", "chat", "embeddings"]),
            cache=chance.choice([CacheStatus.HIT, CacheStatus.HIT, CacheStatus.MISS, CacheStatus.BYPASS]),
            status=chance.choice([200, 200, 200, 200, 502, 400]),
            finished=chance.choice([11.0, 12.0, 12.5]),
            usage=Usage(chance.choice([None, 1, 5]), chance.choice([None, 2, 900])),
            request_body=b'{"prompt": "%b"}' % chance.choice([b"red apple", b"green apple", b"red pear"]),
        )
        for number in range(ROWS)
    ]


def tokens(row: dict[str, Any]) -> int:
    return (row["prompt_tokens"] or 0) + (row["completion_tokens"] or 0)


def like(row: dict[str, Any], wanted: HistoryQuery, made: list[Exchange]) -> bool:
    names = ("user", "session", "model", "endpoint", "cache", "status")
    if any(getattr(wanted, name) not in (None, row[name]) for name in names):
        return False
    if wanted.failed and row["status"] < 400:
        return False
    if row["total_seconds"] < (wanted.min_seconds or 0) or tokens(row) < (wanted.min_tokens or 0):
        return False
    if not (wanted.since or 0.0) <= row["created_at"] < (wanted.until or 1e12):
        return False
    body = made[int(row["request_id"])].request_body.decode()
    return all(" ".join(phrase) in body for phrase in wanted.text)


async def everything(database: Database, wanted: HistoryQuery) -> list[dict[str, Any]]:
    """All pages of it."""
    rows: list[dict[str, Any]] = []
    for _ in range(ROWS):
        found = await page(database, wanted)
        assert len(found.rows) <= wanted.limit
        rows += found.rows
        if found.next is None:
            return rows
        wanted = replace(wanted, after=HistoryCursor.read(found.next.text()))
    raise AssertionError("the pages have no end")


@pytest.fixture
async def filled(database: Database) -> Database:
    await write(database, exchanges())
    await followed(Texts(database))
    return database


async def test_any_filters_give_what_a_search_through_all_rows_gives(
    filled: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    # so that a page ends for having looked at enough, too
    monkeypatch.setattr(search, "FIRST_STRIDE", 10)
    monkeypatch.setattr(search, "LONGEST_STRIDE", 50)
    monkeypatch.setattr(search, "MOST_LOOKED_AT", 120)
    monkeypatch.setattr(search, "LONGEST_TEXTS", 40)
    monkeypatch.setattr(search, "MOST_TEXTS", 100)
    made, chance = exchanges(), random.Random(1)
    choices: dict[str, list[Any]] = {
        "user": ["ann", "rare", "nobody"],
        "session": ["s1", ""],
        "model": ["m1", "m3"],
        "endpoint": ["chat", "embeddings", "rerank"],
        "cache": ["hit", "miss", "stale"],
        "status": [200, 502, 404],
        "since": [1_700_000_000.0 + 100],
        "until": [1_700_000_000.0 + 180],
        "text": [(("red",),), (("apple",), ("red",)), (("red", "apple"),), (("apple", "red"),)],
        "failed": [True],
        "min_seconds": [1.5],
        "min_tokens": [6, 900],
    }
    all_rows = await everything(filled, HistoryQuery(100))
    for _ in range(60):
        names = chance.sample(sorted(choices), chance.choice([0, 1, 1, 2, 3]))
        wanted = HistoryQuery(chance.choice([7, 50, 1000]), **{name: chance.choice(choices[name]) for name in names})
        rows = await everything(filled, wanted)
        order = [row["id"] if wanted.text else (row["created_at"], row["id"]) for row in rows]
        assert order == sorted(order, reverse=True)
        assert {row["id"] for row in rows} == {row["id"] for row in all_rows if like(row, wanted, made)}, wanted
        assert len(rows) == len(set(order))


async def test_the_slowest_and_the_largest_come_first(filled: Database) -> None:
    made, chance = exchanges(), random.Random(2)
    all_rows = await everything(filled, HistoryQuery(100))
    choices: dict[str, list[Any]] = {
        "user": ["ann", "nobody"],
        "cache": ["miss"],
        "failed": [True],
        "min_seconds": [1.5],
        "until": [1_700_000_000.0 + 100],
        "text": [(("red",),)],
    }
    orders: list[search.Order] = ["slowest", "tokens"]
    for _ in range(12):
        names = chance.sample(sorted(choices), chance.choice([0, 1, 2]))
        filters = {name: chance.choice(choices[name]) for name in names}
        for order in orders:
            wanted = HistoryQuery(50, order=order, **filters)
            rows = await everything(filled, wanted)
            ranks = [(row["total_seconds"] if order == "slowest" else tokens(row), row["id"]) for row in rows]
            assert ranks == sorted(ranks, reverse=True)
            assert {row["id"] for row in rows} == {row["id"] for row in all_rows if like(row, wanted, made)}, wanted


async def test_a_rank_is_among_the_newest(filled: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(search, "MOST_LOOKED_AT", 99)
    newest = await page(filled, HistoryQuery(100))
    ranked = await everything(filled, HistoryQuery(1000, order="slowest"))
    assert {row["id"] for row in ranked} == {row["id"] for row in newest.rows}


async def test_a_page_ends_where_enough_was_looked_at(filled: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(search, "FIRST_STRIDE", 100)
    monkeypatch.setattr(search, "MOST_LOOKED_AT", 100)
    first = await page(filled, HistoryQuery(10, endpoint="rerank"))
    assert (first.rows, first.next is None) == ([], False)
    monkeypatch.setattr(search, "MOST_TEXTS", 100)
    first = await page(filled, HistoryQuery(10, endpoint="rerank", text=(("apple",),)))
    assert (first.rows, first.next is None) == ([], False)


async def test_rows_that_come_meanwhile_do_not_move_the_pages(filled: Database) -> None:
    first = await page(filled, HistoryQuery(10))
    await write(filled, [fetched(request_id=str(ROWS), started_at=1_800_000_000.0)])
    second = await page(filled, HistoryQuery(10, after=first.next))
    again = await page(filled, HistoryQuery(21))
    assert [row["id"] for row in again.rows] == [ROWS + 1, *(row["id"] for row in first.rows + second.rows)]


async def test_the_last_page_knows_that_it_is_the_last(filled: Database) -> None:
    assert (await page(filled, HistoryQuery(ROWS))).next is None
    assert (await page(filled, HistoryQuery(ROWS - 1))).next is not None


async def test_bodies_only_where_they_are_wanted(filled: Database) -> None:
    row = (await page(filled, HistoryQuery(1), bodies=True)).rows[0]
    assert row["response_body"] == b"response"
    assert "response_body" not in (await page(filled, HistoryQuery(1))).rows[0]


@pytest.mark.parametrize("text", ["", "x", "WzFd", "WzEuMCwiYSJd", "bm8", "\u00e9", cursor([1.0, 2**63])])
def test_another_cursor_is_refused(text: str) -> None:
    with pytest.raises(BadRequest, match="cursor"):
        HistoryCursor.read(text)


INDEXED = [
    ({}, "ix_history_created_at_id"),
    ({"since": 5.0, "until": 6.0}, "ix_history_created_at_id"),
    ({"user": "ann"}, "ix_history_user_name_created_at_id"),
    ({"user": "ann", "since": 5.0, "after": HistoryCursor(7.0, 7)}, "ix_history_user_name_created_at_id"),
    ({"session": "s1", "user": "ann"}, "ix_history_session_created_at_id"),
    ({"model": "m1"}, "ix_history_model_created_at_id"),
    ({"model": "m1", "endpoint": "chat"}, "ix_history_model_created_at_id"),
    ({"status": 502}, "ix_history_failed"),
    ({"status": 502, "model": "m1"}, "ix_history_failed"),
    ({"cache": "miss"}, "ix_history_missed"),
    ({"cache": "hit"}, "ix_history_created_at_id"),
    ({"status": 200}, "ix_history_created_at_id"),
    ({"endpoint": "chat"}, "ix_history_created_at_id"),
]


@pytest.mark.parametrize(("filters", "index"), INDEXED)
async def test_every_question_goes_along_an_index(database: Database, filters: dict[str, Any], index: str) -> None:
    """No query reads or sorts the whole table."""
    await write(database, [fetched(started_at=float(number)) for number in range(10)])
    plans = await planned(database, HistoryQuery(10, **filters))
    assert plans
    for plan in plans:
        assert index in plan
        assert "SCAN history\n" not in plan
        assert "Seq Scan on history" not in plan


async def test_a_text_is_found_in_the_order_of_the_index(sqlite: Database) -> None:
    await write(sqlite, [fetched(request_body=b'{"prompt": "red"}')] * 3)
    await followed(Texts(sqlite))
    plans = await planned(sqlite, HistoryQuery(10, text=(("red",),), after=HistoryCursor(0.0, 3)))
    assert "TEMP B-TREE" not in "".join(plans)
    assert any("SCAN history_texts VIRTUAL TABLE INDEX" in plan for plan in plans)
    assert any("SEARCH history USING INTEGER PRIMARY KEY" in plan for plan in plans)


async def planned(database: Database, wanted: HistoryQuery) -> list[str]:
    """How the database goes about each query of a page, in its own words."""
    asked: list[tuple[str, Any]] = []

    def note(connection: Any, cursor: Any, statement: str, parameters: Any, *_: Any) -> None:
        if statement.startswith("SELECT"):
            asked.append((statement, parameters))

    event.listen(database.engine.sync_engine, "before_cursor_execute", note)
    await page(database, wanted)
    event.remove(database.engine.sync_engine, "before_cursor_execute", note)
    plans = []
    async with database.read() as connection:
        if database.dialect.name == "postgresql":
            # of ten rows it would rather read the whole table
            await connection.execute(text("SET enable_seqscan = off"))
            await connection.execute(text("SET enable_bitmapscan = off"))
        explained = "EXPLAIN QUERY PLAN" if database.dialect.name == "sqlite" else "EXPLAIN"
        for statement, parameters in asked:
            lines = (await connection.exec_driver_sql(f"{explained} {statement}", parameters)).all()
            plans.append("".join(f"{line[-1]}\n" for line in lines))
    return plans
