import asyncio
import logging
import sqlite3
from functools import partial
from itertools import count

import pytest

from llmproxy.history import projector as module
from llmproxy.history.projector import Projector
from llmproxy.runtime.background import Backoff


class Counting:
    """A step over rows that are only counted. ``fail`` is raised as often as it is set to."""

    name = "counts"

    def __init__(self) -> None:
        self.rows = 0
        self.seen = 0
        self.failures = 0
        self.failed = asyncio.Event()

    async def advance(self) -> bool:
        if self.failures:
            self.failures -= 1
            self.failed.set()
            raise sqlite3.OperationalError("disk I/O error")
        await asyncio.sleep(0)
        self.seen = min(self.seen + 10, self.rows)
        return self.seen < self.rows


@pytest.fixture
def step() -> Counting:
    return Counting()


async def test_rows_from_before_the_start_are_worked_on(step: Counting) -> None:
    step.rows = 25
    follower = Projector(step, lambda: False)
    follower.open()
    assert await follower.settle(10)
    assert step.seen == 25
    await follower.close()


async def test_who_asks_does_not_wait_for_more_rows_to_come(step: Counting, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "GATHER_SECONDS", 3600.0)
    follower = Projector(step, lambda: True)
    follower.open()
    for rows in (5, 500):
        step.rows = rows
        follower.wake()
        assert await follower.settle(10)
        assert step.seen == rows
    await follower.close()


async def test_a_question_has_a_limit(step: Counting) -> None:
    follower = Projector(step, lambda: False)
    assert not await follower.settle(0.001)
    await follower.close()


async def test_rows_that_come_all_the_time_do_not_hold_up_who_asks(step: Counting) -> None:
    follower = Projector(step, lambda: False)
    follower.open()

    async def more() -> None:
        while True:
            step.rows += 1
            follower.wake()
            await asyncio.sleep(0)

    coming = asyncio.create_task(more())
    assert await follower.settle(10)
    coming.cancel()
    await asyncio.wait([coming])
    await follower.close()


async def test_a_fault_is_logged_once_and_made_up_for(
    step: Counting, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, "llmproxy.database.breaker")
    monkeypatch.setattr(module, "GATHER_SECONDS", 0.0)
    step.rows, step.failures = 5, 3
    told: list[tuple[str, str]] = []
    no_pause = Backoff(0.0, 0.0)
    follower = Projector(step, lambda: False, on_fault=lambda *fault: told.append(fault), backoff=no_pause)
    follower.open()
    assert await follower.settle(10)
    assert step.seen == 5
    assert told == [("counts", "unreachable")] * 3
    messages = [record.getMessage() for record in caplog.records]
    assert messages == ["history: counts cannot be kept up to date (unreachable); silent until they can"]
    await follower.close()
    await follower.close()


async def test_while_rows_wait_to_be_written_it_rests_longer(step: Counting, monkeypatch: pytest.MonkeyPatch) -> None:
    rests: list[float] = []

    async def noted(self: Projector, seconds: float) -> None:
        rests.append(seconds)

    monkeypatch.setattr(Projector, "_rest", noted)
    for busy, rest in ((True, module.REST_BEHIND_WRITER), (False, module.REST)):
        follower = Projector(step, partial(bool, busy), clock=map(float, count()).__next__)
        follower.open()
        assert await follower.settle(10)
        await follower.close()
        assert rests == [module.GATHER_SECONDS, rest]
        rests.clear()
