"""Answers by their ids, over each database: found at once, written behind, separated by scope, gone when deleted."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import insert, update

from llmproxy.database.engine import Database
from llmproxy.database.write_behind import WriteLimits
from llmproxy.jobs import stored as module
from llmproxy.jobs.model import JobKind, JobStatus, NewCall, NewJob
from llmproxy.jobs.notifications import JobNotifications
from llmproxy.jobs.queue import Queue
from llmproxy.jobs.store import Store
from llmproxy.jobs.stored import LONGEST_CHAIN, StoredAnswers
from llmproxy.jobs.stored_model import AnswerKind, StoredAnswer
from llmproxy.jobs.tables import jobs, stored
from llmproxy.wire.errors import BadRequest
from tests.databases import ruin_sqlite

NOW = 1_800_000_000.0
SECONDS = 10.0


def answer(id: str = "resp_1", **more: Any) -> StoredAnswer:
    common: dict[str, Any] = {"model": "m", "created_at": NOW, "request": b"{}", "input": b"[]", "document": b"{}"}
    return StoredAnswer(**{"id": id, "kind": AnswerKind.RESPONSE, "scope": "", **common, **more})


def ignore() -> None:
    """For tests in which nothing is lost."""


@asynccontextmanager
async def opened(database: Database, lost: Callable[[], None] = ignore) -> AsyncIterator[StoredAnswers]:
    answers = StoredAnswers(Store(database), lost, lambda: NOW)
    answers.open()
    try:
        yield answers
    finally:
        await answers.close(SECONDS)


async def find(answers: StoredAnswers, id: str = "resp_1", scope: str = "") -> StoredAnswer | None:
    return await answers.find(id, AnswerKind.RESPONSE, scope)


async def chained(answers: StoredAnswers, id: str) -> tuple[list[str], str]:
    chain, missing = await answers.chain(id, AnswerKind.RESPONSE, "")
    return [each.id for each in chain], missing


async def test_an_answer_is_found_at_once_and_after_a_restart(database: Database) -> None:
    kept = answer(request=b'{"a":1}', input=b"[1]", document=b'{"b":2}', stream=True, previous_id="resp_0")
    async with opened(database) as answers:
        answers.keep(kept)
        assert await find(answers) == kept
    async with opened(database) as answers:
        assert await find(answers) == kept
        assert await find(answers, "resp_2") is None


async def test_nobody_sees_the_answers_of_another_scope_or_kind(database: Database) -> None:
    for _ in ("waiting", "written"):
        async with opened(database) as answers:
            answers.keep(answer("resp_1", scope="ann"))
            assert await find(answers, "resp_1", "ann") is not None
            assert await find(answers, "resp_1", "bob") is None
            assert await find(answers, "resp_1", "") is None
            assert await answers.find("resp_1", AnswerKind.CHAT, "ann") is None
            assert await answers.chain("resp_1", AnswerKind.RESPONSE, "bob") == ([], "resp_1")


async def test_a_conversation_is_followed_through_memory_and_database(database: Database) -> None:
    async with opened(database) as answers:
        for number in range(1, 4):
            answers.keep(answer(f"resp_{number}", previous_id=f"resp_{number - 1}" if number > 1 else ""))
    async with opened(database) as answers:
        for number in range(4, 6):
            answers.keep(answer(f"resp_{number}", previous_id=f"resp_{number - 1}"))
        assert await chained(answers, "resp_5") == ([f"resp_{number}" for number in (5, 4, 3, 2, 1)], "")
        await answers.delete("resp_2")
        assert await chained(answers, "resp_5") == (["resp_5", "resp_4", "resp_3"], "resp_2")


async def test_a_conversation_that_began_in_memory_goes_on_in_the_database(database: Database) -> None:
    answers = StoredAnswers(Store(database), ignore, lambda: NOW)
    answers.keep(answer("resp_1"))
    async with database.write() as connection:
        await module.put_answer(connection, answer("resp_2", previous_id="resp_1"))
    answers.keep(answer("resp_3", previous_id="resp_2"))
    assert await chained(answers, "resp_3") == (["resp_3", "resp_2", "resp_1"], "")


async def test_a_conversation_has_an_end(sqlite: Database) -> None:
    rows = [answer(f"resp_{n}", previous_id=f"resp_{n - 1}").row() for n in range(LONGEST_CHAIN + 2)]
    async with sqlite.write() as connection:
        await connection.execute(insert(stored), rows)
    async with opened(sqlite) as answers:
        with pytest.raises(BadRequest, match="more than 1000"):
            await chained(answers, f"resp_{LONGEST_CHAIN + 1}")


async def test_a_conversation_of_which_a_part_expired_has_a_hole(database: Database) -> None:
    async with opened(database) as answers:
        answers.keep(answer("resp_1"))
        answers.keep(answer("resp_2", previous_id="resp_1", expires_at=NOW - 1))
        answers.keep(answer("resp_3", previous_id="resp_2"))
    async with opened(database) as answers:
        assert await chained(answers, "resp_3") == (["resp_3"], "resp_2")


async def test_what_is_deleted_stays_so(database: Database) -> None:
    async with opened(database) as answers:
        answers.keep(answer())
        await answers.delete("resp_1")
        assert await find(answers) is None
        answers.keep(answer("resp_2"))
    async with opened(database) as answers:
        assert await find(answers) is None
        assert await find(answers, "resp_2") is not None
        await answers.delete("resp_2")
        assert await find(answers, "resp_2") is None


async def test_a_name_that_no_database_takes_is_kept_without_what_offends(database: Database) -> None:
    lost: list[None] = []
    async with opened(database, lambda: lost.append(None)) as answers:
        answers.keep(answer(model="a\0b"))
    async with opened(database) as answers:
        found = await find(answers)
    assert found is not None
    assert (found.model, lost) == ("ab", [])


async def test_a_row_that_is_refused_is_lost_alone(sqlite: Database) -> None:
    lost: list[None] = []
    refused = answer("resp_5", created_at=None)
    async with opened(sqlite, lambda: lost.append(None)) as answers:
        for number in range(10):
            answers.keep(refused if number == 5 else answer(f"resp_{number}"))
    async with opened(sqlite) as answers:
        kept = [number for number in range(10) if await find(answers, f"resp_{number}") is not None]
    assert kept == [0, 1, 2, 3, 4, 6, 7, 8, 9]
    assert len(lost) == 1


async def test_without_a_database_nothing_is_in_the_way_and_what_is_lost_is_counted(
    sqlite: Database, sqlite_file: Path
) -> None:
    ruin_sqlite(sqlite_file)
    lost: list[None] = []
    async with opened(sqlite, lambda: lost.append(None)) as answers:
        answers.keep(answer())
        assert await find(answers) == answer()
    assert len(lost) == 1


async def test_more_than_may_wait_is_lost_and_counted(sqlite: Database) -> None:
    lost: list[None] = []
    answers = StoredAnswers(Store(sqlite), lambda: lost.append(None), lambda: NOW, WriteLimits(bytes=2_000))
    answers.keep(answer("resp_1", document=b"x" * 1_000))
    answers.keep(answer("resp_2", document=b"x" * 1_000))
    assert await find(answers, "resp_1") is not None
    assert await find(answers, "resp_2") is None
    assert len(lost) == 1


async def test_the_old_and_the_expired_are_forgotten_but_not_what_is_under_way(database: Database) -> None:
    queue = Queue(Store(database), JobNotifications(), lambda: NOW - 100)
    job = await queue.submit(NewJob(JobKind.RESPONSE, "/v1/responses", id="resp_open"), [NewCall(0, b"{}")])
    async with opened(database) as answers:
        answers.keep(answer("resp_old", created_at=NOW - 100))
        answers.keep(answer("resp_new"))
        answers.keep(answer("resp_expired", expires_at=NOW - 1))
        answers.keep(answer("resp_current", expires_at=NOW + 1))
        answers.keep(answer(job.id, created_at=NOW - 100, background=True))
    async with opened(database) as answers:
        assert await find(answers, "resp_expired") is None
        assert await find(answers, "resp_old") is not None
        await answers.delete_old(NOW - 50)
        left = [name for name in ("old", "new", "expired", "current", "open") if await find(answers, f"resp_{name}")]
    assert left == ["new", "current", "open"]


async def test_an_answer_of_the_background_says_how_its_job_stands(database: Database) -> None:
    queue = Queue(Store(database), JobNotifications(), lambda: NOW)
    waiting = answer("resp_1", document=None, background=True)
    await queue.submit(
        NewJob(JobKind.RESPONSE, "/v1/responses", id="resp_1"),
        [NewCall(0, b"{}")],
        waiting,
    )
    async with opened(database) as answers:
        assert await find(answers) == replace(waiting, job=JobStatus.PENDING)
        async with database.write() as connection:
            await module.complete_answer(connection, "resp_1", b'{"a":1}', NOW + 5)
            await connection.execute(update(jobs).values(status=JobStatus.COMPLETED))
        done = replace(waiting, job=JobStatus.COMPLETED, document=b'{"a":1}', expires_at=NOW + 5)
        assert await find(answers) == done


async def test_a_closing_writer_ends_in_time(sqlite: Database, sqlite_file: Path) -> None:
    ruin_sqlite(sqlite_file)
    lost: list[None] = []
    answers = StoredAnswers(Store(sqlite), lambda: lost.append(None), lambda: NOW)
    answers.open()
    answers.keep(answer())
    async with asyncio.timeout(SECONDS):
        await answers.close(0.0)
        await answers.close(0.0)
    assert len(lost) == 1
