import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import delete, select
from sqlalchemy.ext.asyncio import AsyncConnection

from llmproxy.database.engine import Database
from llmproxy.history import text_index as module
from llmproxy.history.record import Recorder
from llmproxy.history.retention import delete_rows
from llmproxy.history.tables import HISTORY_TEXTS, history
from llmproxy.history.text_index import Texts, phrases_of
from llmproxy.history.text_index import spoken_words as words_of_both
from llmproxy.wire.exchange import Exchange
from tests.history.exchanges import fetched
from tests.history.keeping import followed, found, write


def said(prompt: str, answer: str = "") -> Exchange:
    return fetched(
        request_body=json.dumps({"prompt": prompt}).encode(), response_body=json.dumps({"response": answer}).encode()
    )


async def indexed(database: Database) -> list[int]:
    """The ids that the index holds."""
    async with database.read() as connection:
        column = "rowid" if database.dialect.name == "sqlite" else "id"
        rows = await connection.exec_driver_sql(f"SELECT {column} FROM {HISTORY_TEXTS} ORDER BY 1")
        return [row[0] for row in rows]


@pytest.mark.parametrize(
    ("query", "ids"),
    [
        ("weather", [3, 1]),
        ("WEATHER paris", [1]),
        ("get_weather(city)", [3]),
        ("weather_get", []),
        ("messages[0].content", [4]),
        ("東京", [2]),
        ("京大", [2]),
        ("大東", []),
        ("straße", [5]),
        ("strasse", [5]),
        ("nothing", []),
        ('" OR *:^(', []),
        ("drop'table", [4]),
    ],
)
async def test_words_and_phrases_are_found(database: Database, query: str, ids: list[int]) -> None:
    await write(
        database,
        [
            said("Weather in Paris?", "Rain."),
            said("東京大学はどこ", "東京"),
            said("call get_weather(city='Rome')", "or not"),
            said("why is messages[0].content empty", "DROP 'table' it"),
            said("Straße", ""),
        ],
    )
    await followed(Texts(database))
    expected = ids if phrases_of(query) != [["or"]] else [3]
    assert await found(database, query) == expected


@given(st.text(max_size=30), st.text(max_size=10))
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
async def test_whatever_a_person_types_is_no_query_syntax(database: Database, text: str, query: str) -> None:
    await write(database, [said(f"{text} {query}")])
    await followed(Texts(database))
    if phrases_of(query):
        async with database.read() as connection:
            newest = (await connection.execute(select(history.c.id).order_by(history.c.id.desc()).limit(1))).scalar()
        assert newest in await found(database, query)


async def test_rows_are_indexed_once_in_chunks(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "CHUNK", 10)
    monkeypatch.setattr(module, "CHUNK_BYTES", 200)
    bodies = ["short"] * 25 + ["long " * 100] * 3 + ["short"]
    await write(database, [said(body) for body in bodies])
    step = Texts(database)
    assert await followed(step) > 3
    assert await indexed(database) == list(range(1, 30))
    await write(database, [fetched(request_body=b"", response_body=b"")])
    assert await followed(step) == 1
    assert await indexed(database) == list(range(1, 30))


async def test_of_two_processes_one_indexes_a_row(database: Database) -> None:
    await write(database, [said("hello")] * 30)
    await asyncio.gather(*(followed(Texts(database)) for _ in range(4)))
    assert await indexed(database) == list(range(1, 31))


class Deleting(Database):
    """A database in which somebody deletes a row after it was read, and before its words are written."""

    def __init__(self, real: Database, id: int) -> None:
        super().__init__(real.dialect, real.engine)
        self._real = real
        self._id = id

    @asynccontextmanager
    async def write(self, *, durable: bool = False) -> AsyncIterator[AsyncConnection]:
        async with self._real.write() as connection:
            await connection.execute(delete(history).where(history.c.id == self._id))
        async with self._real.write() as connection:
            yield connection


async def test_a_row_that_is_deleted_meanwhile_leaves_no_words(database: Database) -> None:
    await write(database, [said("one"), said("two")])
    async with Deleting(database, 1) as deleting:
        await Texts(deleting).advance()
    assert await indexed(database) == [2]


async def test_rows_are_deleted_with_their_words(database: Database) -> None:
    await write(database, [said("word " + "x" * 200_000) for _ in range(8)])
    await followed(Texts(database))
    some = select(history.c.id, history.c.body_bytes).where(history.c.id.in_([1, 2, 3, 4, 5, 7]))
    assert await delete_rows(database, some) == 6
    assert await indexed(database) == [6, 8]
    assert await found(database, "word") == [8, 6]


async def test_words_that_take_more_than_a_database_holds_of_one_text(database: Database) -> None:
    """What PostgreSQL refuses would keep all later rows from being found."""
    long = [" ".join(f"{number:05}{side}" + "\ufdf2" * 24 for number in range(4_000)) for side in "ab"]
    await write(database, [said("before"), said(*long), said("after")], Recorder(10_000_000))
    await followed(Texts(database))
    assert await found(database, "before") == [1]
    assert await found(database, "after") == [3]
    assert len(await found(database, phrase(long[0], 0))) == len(await found(database, phrase(long[1], -1))) == 1


def phrase(text: str, number: int) -> str:
    return text.split()[number]


async def test_words_that_the_database_refuses_are_skipped_and_told(
    database: Database, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    told: list[tuple[str, str]] = []
    real = words_of_both

    def spoken_words(request: bytes | None, response: bytes | None) -> list[str]:
        words = real(request, response)
        # SQLite takes no lone surrogate, PostgreSQL no quote
        return ["\ud800'"] if "bad" in words else words

    monkeypatch.setattr(module, "spoken_words", spoken_words)
    await write(database, [said(f"row {'bad' if number in (3, 17) else 'good'} {number}") for number in range(20)])
    step = Texts(database, lambda part, fault: told.append((part, fault)))
    assert await followed(step) > 3
    assert await found(database, "good") == [number + 1 for number in reversed(range(20)) if number not in (3, 17)]
    assert told == [("texts", "refused")] * 2
    assert len(caplog.records) == 2
