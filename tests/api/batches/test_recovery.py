"""Steps of a batch that are done again after a crash, and batches that are ended half-way."""

from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest

from llmproxy.api import file_rows as files
from llmproxy.api.batch_model import WINDOW_SECONDS, Detail, batch_object
from llmproxy.api.file_model import FileQuery
from llmproxy.api.file_rows import sweep
from llmproxy.jobs import lifecycle
from llmproxy.jobs.handler import CancelToken
from llmproxy.jobs.model import JobStatus, Reschedule, Step
from llmproxy.wire.errors import Unavailable
from tests.api.batches.by_hand import ByHand, by_hand
from tests.api.batches.made import request

LINES = [request(f"r{number}") for number in range(5)]
NAMES = [line["custom_id"] for line in LINES]
HOUR = 3_600.0


@pytest.fixture
async def hand(tmp_path: Path, database_url: str) -> AsyncIterator[ByHand]:
    async with by_hand(tmp_path, database_url) as made:
        yield made


async def test_calls_that_a_dead_worker_added_are_not_added_again(hand: ByHand) -> None:
    job = await hand.batch(*LINES)
    await hand.begun(job, *LINES[:2])
    await hand.jobs.queue.release("dead")
    await hand.do(Step.VALIDATE)
    assert await hand.labels(job) == NAMES
    await hand.answer(5)
    await hand.do(Step.FINALIZE)
    over = await hand.now(job)
    assert over.status is JobStatus.COMPLETED
    assert list(await hand.file(Detail.of(over).output_file_id)) == NAMES


async def test_calls_that_end_before_all_are_added_do_not_end_the_batch(hand: ByHand) -> None:
    job = await hand.batch(*LINES)
    await hand.begun(job, *LINES[:2])
    await hand.answer(2)
    assert (await hand.now(job)).status is JobStatus.RUNNING
    await hand.jobs.queue.release("dead")
    await hand.do(Step.VALIDATE)
    await hand.answer(3)
    assert (await hand.now(job)).status is JobStatus.FINALIZING


async def test_one_who_lost_the_lease_adds_nothing(hand: ByHand) -> None:
    job = await hand.batch(*LINES)
    slow = await hand.claim("slow", Step.VALIDATE)
    await hand.jobs.queue.release("slow")
    assert isinstance(await hand.validate(slow, CancelToken()), Reschedule)
    assert (await hand.now(job)).status is JobStatus.PENDING
    assert await hand.labels(job) == []


async def test_files_written_twice_are_the_same_and_there_once(hand: ByHand) -> None:
    job = await hand.batch(*LINES)
    await hand.do(Step.VALIDATE)
    await hand.answer(5)
    first = await hand.claim("dead", Step.FINALIZE)
    # the files are written, and then the worker dies
    await hand.result(first)
    assert batch_object(await hand.now(job))["output_file_id"] is None
    before = {name: [piece async for piece in hand.jobs.blobs.read(name)] for name in await hand.jobs.blobs.names()}
    await hand.jobs.queue.release("dead")
    await hand.do(Step.FINALIZE)
    after = {name: [piece async for piece in hand.jobs.blobs.read(name)] for name in await hand.jobs.blobs.names()}
    assert after == before
    page, _ = await files.page(hand.jobs.store, FileQuery(""), hand.jobs.queue.clock())
    assert [file.id for file in page] == [batch_object(await hand.now(job))["output_file_id"]]


async def test_one_who_is_told_to_leave_writes_no_file(hand: ByHand) -> None:
    await hand.batch(*LINES)
    await hand.do(Step.VALIDATE)
    await hand.answer(5)
    before = await hand.jobs.blobs.names()
    gone = CancelToken()
    gone.leave()
    claimed = await hand.claim("worker", Step.FINALIZE)
    assert isinstance(await hand.finalize(claimed, gone), Reschedule)
    assert await hand.jobs.blobs.names() == before


async def test_a_batch_cancelled_while_it_is_read_lists_every_line(hand: ByHand) -> None:
    job = await hand.batch(*LINES)
    await hand.begun(job, *LINES[:3])
    await hand.answer(1)
    cut, done = await lifecycle.cancel(hand.jobs.queue, job.id)
    assert done
    assert cut is not None
    assert batch_object(cut)["status"] == "cancelling"
    await hand.do(Step.FINALIZE)
    over = batch_object(await hand.now(job))
    assert over["status"] == "cancelled"
    assert over["request_counts"] == {"total": 5, "completed": 1, "failed": 0}
    assert list(await hand.file(over["output_file_id"])) == NAMES[:1]
    missing = await hand.file(over["error_file_id"])
    assert list(missing) == NAMES[1:]
    assert {line["error"]["code"] for line in missing.values()} == {"batch_cancelled"}
    assert len({line["id"] for line in missing.values()}) == 4


async def test_what_is_not_done_when_the_window_closes_has_expired(hand: ByHand) -> None:
    job = await hand.batch(*LINES)
    await hand.do(Step.VALIDATE)
    await hand.answer(2)
    start = job.created_at
    hand.jobs.queue.clock = lambda: start + WINDOW_SECONDS - 1
    await lifecycle.expire(hand.jobs.queue)
    assert batch_object(await hand.now(job))["status"] == "in_progress"
    hand.jobs.queue.clock = lambda: start + WINDOW_SECONDS + 1
    await lifecycle.expire(hand.jobs.queue)
    assert batch_object(await hand.now(job))["status"] == "finalizing"
    await hand.do(Step.FINALIZE)
    over = batch_object(await hand.now(job))
    assert (over["status"], over["completed_at"], over["cancelled_at"]) == ("expired", None, None)
    assert over["expired_at"] >= over["expires_at"] == over["created_at"] + WINDOW_SECONDS
    assert over["usage"]["total_tokens"] == 6
    assert list(await hand.file(over["output_file_id"])) == NAMES[:2]
    missing = await hand.file(over["error_file_id"])
    assert list(missing) == NAMES[2:]
    assert {line["error"]["code"] for line in missing.values()} == {"batch_expired"}


async def test_a_batch_that_never_began_expires_without_files(hand: ByHand) -> None:
    job = await hand.batch(*LINES)
    end = job.created_at + WINDOW_SECONDS
    hand.jobs.queue.clock = lambda: end
    await lifecycle.expire(hand.jobs.queue)
    over = batch_object(await hand.now(job))
    assert (over["status"], over["output_file_id"], over["error_file_id"]) == ("expired", None, None)


async def test_the_input_is_kept_until_it_is_read_even_where_its_file_is_gone(hand: ByHand) -> None:
    job = await hand.batch(*LINES)
    blob = str(Detail.of(job).blob)

    async def swept() -> list[str]:
        later = hand.jobs.queue.clock() + 2 * HOUR
        await sweep(hand.jobs.store, hand.jobs.blobs, lambda: later)
        return await hand.jobs.blobs.names()

    # it has no row: its file was deleted
    assert await swept() == [blob]
    await hand.begun(job, *LINES[:2])
    assert await swept() == [blob]
    await lifecycle.cancel(hand.jobs.queue, job.id)
    assert await swept() == [blob]
    await hand.do(Step.FINALIZE)
    assert await swept() == [batch_object(await hand.now(job))["error_file_id"]]


async def test_an_input_that_is_lost_all_the_same_ends_the_batch_in_time(hand: ByHand) -> None:
    job = await hand.batch(*LINES)
    claimed = await hand.begun(job, *LINES[:2])
    await hand.jobs.blobs.delete(str(Detail.of(job).blob))
    begun = replace(claimed, job=await hand.now(job))
    with pytest.raises(Unavailable):
        await hand.validate(begun, CancelToken())
    await lifecycle.cancel(hand.jobs.queue, job.id)
    await hand.do(Step.FINALIZE)
    over = batch_object(await hand.now(job))
    assert over["status"] == "cancelled"
    assert list(await hand.file(over["error_file_id"])) == NAMES[:2]


async def test_a_batch_that_is_tried_again_replaces_its_files(hand: ByHand) -> None:
    job = await hand.batch(*LINES)
    await hand.do(Step.VALIDATE)
    await hand.answer(2)
    await lifecycle.cancel(hand.jobs.queue, job.id)
    await hand.do(Step.FINALIZE)
    first = batch_object(await hand.now(job))
    await lifecycle.retry(hand.jobs.queue, job.id)
    running = batch_object(await hand.now(job))
    assert (running["status"], running["output_file_id"]) == ("in_progress", None)
    await hand.answer(3)
    await hand.do(Step.FINALIZE)
    second = batch_object(await hand.now(job))
    assert (second["status"], second["error_file_id"]) == ("completed", None)
    assert second["output_file_id"] == first["output_file_id"]
    assert list(await hand.file(second["output_file_id"])) == NAMES
    page, _ = await files.page(hand.jobs.store, FileQuery(""), hand.jobs.queue.clock())
    assert [file.id for file in page] == [second["output_file_id"]]
