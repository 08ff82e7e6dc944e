"""What must be true of the rows of jobs and items at any time, whatever was done."""

from collections.abc import Mapping, Sequence
from typing import Any, cast

from sqlalchemy import RowMapping

from llmproxy.jobs.model import TRAITS, ItemStatus, Job, JobStatus, Step, TokenUsage

Row = dict[str, Any]

ENDED = (ItemStatus.COMPLETED, ItemStatus.FAILED)
OPEN = (ItemStatus.WAITING, ItemStatus.RUNNING)
CUT = (ItemStatus.CANCELLED, ItemStatus.EXPIRED)


def check_jobs(jobs: Sequence[Row], items: Sequence[Row], tokens: TokenUsage) -> None:
    """Every job matches its items, each completed one of which took ``tokens``."""
    assert {row["job_id"] for row in items} <= {row["id"] for row in jobs}, "an item belongs to nobody"
    for row in jobs:
        job = Job.read(cast(RowMapping, row))
        mine = [item for item in items if item["job_id"] == job.id]
        calls = [item for item in mine if item["step"] == Step.CALL]
        steps = {item["step"]: item for item in mine if item["step"] != Step.CALL}
        _check_counts(job, calls)
        _check_numbers(job, calls)
        _check_status(job, calls, steps)
        _check_steps(job, steps)
        taken = (job.prompt_tokens, job.completion_tokens, job.cached_tokens, job.reasoning_tokens)
        each = (tokens.prompt, tokens.completion, tokens.cached, tokens.reasoning)
        assert taken == tuple(job.completed * number for number in each)


def check_items(items: Sequence[Row], requests: set[int], results: set[int]) -> None:
    """``requests`` and ``results`` are the items that have one."""
    assert requests == {row["id"] for row in items}, "every item has its request"
    assert results == {row["id"] for row in items if row["status"] in ENDED}, "one result for each that ended"
    for row in items:
        runs = row["status"] == ItemStatus.RUNNING
        assert (row["worker"] is not None, row["leased_until"] is not None) == (runs, runs)
        assert (row["finished_at"] is None) == (row["status"] in OPEN)


def _check_counts(job: Job, calls: Sequence[Row]) -> None:
    number = {status: sum(row["status"] == status for row in calls) for status in ItemStatus}
    assert (job.completed, job.failed) == (number[ItemStatus.COMPLETED], number[ItemStatus.FAILED])
    # calls that were known of and were not added are counted with those that were cut off
    absent = job.total - len(calls) if job.cancelled or job.expired else 0
    assert job.cancelled + job.expired == sum(number[status] for status in CUT) + absent
    assert not (job.cancelled and job.expired)
    assert job.ended <= job.total
    assert job.status.open or job.ended == job.total, "counts add up to the total"


def _check_numbers(job: Job, calls: Sequence[Row]) -> None:
    numbers = sorted(row["ended"] for row in calls if row["ended"] is not None)
    assert numbers == list(range(1, job.completed + job.failed + 1)), "without gaps, without repeats"
    assert all((row["ended"] is not None) == (row["status"] in ENDED) for row in calls)


def _check_status(job: Job, calls: Sequence[Row], steps: Mapping[str, Row]) -> None:
    if not job.status.open:
        assert not any(row["status"] in OPEN for row in calls), "calls wait for a job that is past them"
    elif Step.VALIDATE not in steps or steps[Step.VALIDATE]["status"] not in OPEN:
        assert len(calls) == job.total, "a job waits for calls that nobody adds"
        assert any(row["status"] in OPEN for row in calls), "a job waits for nothing"
    assert job.status is not JobStatus.PENDING or not any(row["status"] in ENDED for row in calls)
    assert job.status.over == (job.finished_at is not None)
    assert job.error is None or job.status is JobStatus.FAILED


def _check_steps(job: Job, steps: Mapping[str, Row]) -> None:
    traits = TRAITS[job.kind]
    assert (Step.VALIDATE in steps) == (traits.first is not None)
    finalizing = job.status in (JobStatus.FINALIZING, JobStatus.CANCELLING)
    assert finalizing == bool(job.ending)
    last = steps.get(Step.FINALIZE)
    if last is not None:
        assert traits.last is not None
        assert not job.status.open, "a job writes its files and goes on"
        assert finalizing == (last["status"] in OPEN), "it is being finalized as long as its last step is not done"
    elif traits.last is not None:
        # a batch that never began has nothing to write, one that could not be worked on must not
        never = job.status is JobStatus.FAILED or job.started_at is None
        assert job.status.open or never, "a batch that ran has its files"
    assert (Step.DELIVER in steps) == (job.status.over and bool(job.webhook_url)), "one word of it, at its end"
