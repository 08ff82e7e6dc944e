"""Pages of answers over each database: the same of those that are written and of those that still wait."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from llmproxy.database.engine import Database
from llmproxy.jobs.store import Store
from llmproxy.jobs.stored import StoredAnswers, StoredQuery
from llmproxy.jobs.stored_model import AnswerKind, StoredAnswer, dump_labels

NOW = 1_800_000_000.0


def answer(number: int, **more: Any) -> StoredAnswer:
    common: dict[str, Any] = {"model": "m", "created_at": NOW + number, "request": b"{}", "input": b"[]"}
    return StoredAnswer(
        **{"id": f"c{number}", "kind": AnswerKind.CHAT, "scope": "", "document": b"{}", **common, **more}
    )


def ignore() -> None:
    """For tests in which nothing is lost."""


@asynccontextmanager
async def holding(
    database: Database, *written_ones: StoredAnswer, waiting: list[StoredAnswer]
) -> AsyncIterator[StoredAnswers]:
    """Answers of which some are in the database and others in memory only."""
    before = StoredAnswers(Store(database), ignore, lambda: NOW)
    before.open()
    for each in written_ones:
        before.keep(each)
    await before.close(30)
    answers = StoredAnswers(Store(database), ignore, lambda: NOW)
    for each in waiting:
        answers.keep(each)
    yield answers


async def listed(answers: StoredAnswers, **more: Any) -> tuple[list[str], bool]:
    page, has_more = await answers.page(StoredQuery(**{"kind": AnswerKind.CHAT, "scope": "", **more}))
    return [each.id for each in page], has_more


@pytest.mark.parametrize("newest_first", [False, True])
async def test_pages_go_through_all_of_them_once_and_in_order(database: Database, newest_first: bool) -> None:
    # two at the same moment: the id decides
    numbers = [answer(n, created_at=NOW + n // 2) for n in range(7)]
    async with holding(database, *numbers[1::2], waiting=numbers[::2]) as answers:
        ids: list[str] = []
        after, more = None, True
        while more:
            page, more = await answers.page(
                StoredQuery(AnswerKind.CHAT, "", after=after, limit=3, newest_first=newest_first)
            )
            ids += [each.id for each in page]
            after = (page[-1].created_at, page[-1].id)
            assert len(page) == 3 or not more
        assert ids == sorted((each.id for each in numbers), reverse=newest_first)


async def test_a_page_that_is_just_full_is_the_last(database: Database) -> None:
    async with holding(database, answer(1), waiting=[answer(2)]) as answers:
        assert await listed(answers, limit=2) == (["c1", "c2"], False)
        assert await listed(answers, limit=1) == (["c1"], True)
        assert await listed(answers, after=(NOW + 2, "c2")) == ([], False)


async def test_it_goes_on_behind_one_that_is_gone(database: Database) -> None:
    async with holding(database, answer(1), answer(2), waiting=[answer(3)]) as answers:
        await answers.delete("c2")
        assert await listed(answers, after=(NOW + 2, "c2")) == (["c3"], False)


async def test_one_that_waits_and_is_written_already_is_one(database: Database) -> None:
    async with holding(database, answer(1), answer(2), waiting=[answer(1)]) as answers:
        assert await listed(answers) == (["c1", "c2"], False)


@pytest.mark.parametrize("waits", [False, True])
async def test_only_what_is_wanted_is_listed(database: Database, waits: bool) -> None:
    every = [
        answer(1, scope="ann"),
        answer(2, kind=AnswerKind.RESPONSE),
        answer(3, model="other"),
        answer(4, metadata=dump_labels({"a": "x", "b": "y"})),
        answer(5, metadata=dump_labels({"a": "X"})),
        answer(6, metadata=dump_labels({'a"\\': '",\n%_\0é'})),
    ]
    given: list[StoredAnswer] = [] if waits else every
    async with holding(database, *given, waiting=every if waits else []) as answers:
        assert await listed(answers) == (["c3", "c4", "c5", "c6"], False)
        assert await listed(answers, scope="ann") == (["c1"], False)
        assert await listed(answers, model="other") == (["c3"], False)
        assert await listed(answers, labels={"a": "x"}) == (["c4"], False)
        assert await listed(answers, labels={"b": "y", "a": "x"}) == (["c4"], False)
        assert await listed(answers, labels={"b": "y", "a": "X"}) == ([], False)
        assert await listed(answers, labels={"%": "_"}) == ([], False)
        assert await listed(answers, labels={'a"\\': '",\n%_\0é'}) == (["c6"], False)


async def test_an_answer_whose_time_is_up_is_not_listed(database: Database) -> None:
    async with holding(database, answer(1, expires_at=NOW - 1), answer(2, expires_at=NOW + 1), waiting=[]) as answers:
        assert await listed(answers) == (["c2"], False)


async def test_a_page_is_bounded_in_bytes(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("llmproxy.jobs.stored._MOST_BYTES", 2_500)
    large = [answer(n, document=b"1" * 1_000) for n in range(4)]
    async with holding(database, *large[:3], waiting=large[3:]) as answers:
        assert await listed(answers) == (["c0", "c1"], True)
        assert await listed(answers, after=(NOW + 1, "c1")) == (["c2", "c3"], False)
    monkeypatch.setattr("llmproxy.jobs.stored._MOST_BYTES", 10)
    async with holding(database, waiting=[]) as answers:
        assert await listed(answers) == (["c0"], True)


@pytest.mark.parametrize("waits", [False, True])
async def test_labels_are_changed_where_the_answer_is(database: Database, waits: bool) -> None:
    given: list[StoredAnswer] = [] if waits else [answer(1)]
    async with holding(database, *given, waiting=[answer(1)] if waits else []) as answers:
        await answers.relabel("c1", dump_labels({"a": "x"}))
        found = await answers.find("c1", AnswerKind.CHAT, "")
        assert found is not None
        assert found.metadata == dump_labels({"a": "x"})
        answers.open()
        await answers.close(30)
    async with holding(database, waiting=[]) as answers:
        assert await listed(answers, labels={"a": "x"}) == (["c1"], False)
