"""Pauses, rounds, and what is logged of failures."""

import asyncio
import logging
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmproxy.runtime.background import Backoff, FailureLogger, LogOnce, Periodic
from tests.timeouts import WAIT_SECONDS

log = logging.getLogger("tests.background")

LONG = 3600.0


@settings(max_examples=50)
@given(st.integers(-5, 5_000))
def test_a_pause_is_bounded_and_never_none(failures: int) -> None:
    backoff = Backoff()
    assert backoff.first / 2 <= backoff.seconds(failures) <= backoff.longest


def test_pauses_grow_to_the_longest() -> None:
    """Each is between a half and the whole of the one that doubles from failure to failure."""
    backoff = Backoff(first=1.0, longest=10.0)
    for failures, most in ((0, 1.0), (1, 1.0), (2, 2.0), (3, 4.0), (4, 8.0), (5, 10.0), (50, 10.0)):
        pauses = [backoff.seconds(failures) for _ in range(200)]
        assert most / 2 <= min(pauses)
        assert max(pauses) <= most
        assert max(pauses) - min(pauses) > most / 10, "those who failed together do not come back together"


def test_the_first_of_several_failures_is_logged_and_the_success_after_them(caplog: pytest.LogCaptureFixture) -> None:
    once = LogOnce(log)
    once.worked("works again")
    for _ in range(2):
        for number in range(3):
            once.failed("failure %d", number)
        once.worked("works again")
        once.worked("works again")
    assert caplog.messages == ["failure 0", "works again"] * 2


def test_a_failure_with_its_traceback_is_an_error(caplog: pytest.LogCaptureFixture) -> None:
    logger = FailureLogger(log, "100 % broken")
    logger.failed(OSError("no route"))
    logger.failed(OSError("no route"))
    (record,) = caplog.records
    assert (record.levelname, record.message) == ("ERROR", "100 % broken")
    assert record.exc_info is not None


class Rounds:
    """Work whose rounds can be waited for, and the observer of its rounds. ``fails`` says which round fails."""

    def __init__(self, fails: Callable[[int], bool] = lambda number: False) -> None:
        self.begun = 0
        self.ended: list[str] = []
        self._fails = fails
        self._moved = asyncio.Condition()

    async def __call__(self) -> None:
        async with self._moved:
            self.begun += 1
            self._moved.notify_all()
        if self._fails(self.begun):
            raise RuntimeError("a defect")

    async def reach(self, number: int) -> None:
        async with asyncio.timeout(WAIT_SECONDS), self._moved:
            await self._moved.wait_for(lambda: self.begun >= number)

    def failed(self, error: Exception) -> None:
        self.ended.append(str(error))

    def succeeded(self) -> None:
        self.ended.append("")


async def turns() -> None:
    for _ in range(10):
        await asyncio.sleep(0)


async def test_rounds_follow_each_other_whatever_becomes_of_them() -> None:
    work = Rounds(fails=lambda number: number == 1)
    async with Periodic("test", 0.001, work, observer=work):
        await work.reach(4)
    assert work.ended[:3] == ["a defect", "", ""]


async def test_a_round_that_fails_is_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    work = Rounds(fails=lambda number: number < 4)
    async with Periodic("counting", 0.001, work):
        await work.reach(5)
    assert caplog.messages == ["counting failed; silent until it works again"]


async def test_the_first_round_comes_at_once_or_after_the_time() -> None:
    now, later = Rounds(), Rounds()
    async with Periodic("now", LONG, now), Periodic("later", LONG, later, at_once=False):
        await now.reach(1)
        await turns()
    assert (now.begun, later.begun) == (1, 0)


async def test_a_round_can_be_woken() -> None:
    work = Rounds()
    async with Periodic("test", LONG, work, observer=work, at_once=False) as rounds:
        await turns()
        rounds.wake()
        await work.reach(1)
        rounds.wake()
        await work.reach(2)
        await turns()
    assert work.begun == 2


async def test_waking_in_the_middle_of_a_round_brings_the_next_one() -> None:
    begun, go_on, numbers = asyncio.Event(), asyncio.Event(), 0

    async def work() -> None:
        nonlocal numbers
        numbers += 1
        begun.set()
        await go_on.wait()

    async with asyncio.timeout(WAIT_SECONDS), Periodic("test", LONG, work) as rounds:
        await begun.wait()
        rounds.wake()
        begun.clear()
        go_on.set()
        await begun.wait()
    assert numbers == 2


async def test_after_a_failure_nothing_comes_before_its_time() -> None:
    work = Rounds(fails=lambda number: True)
    async with Periodic("test", LONG, work, observer=work) as rounds:
        await work.reach(1)
        await turns()
        rounds.wake()
        await turns()
    assert work.begun == 1


async def test_a_back_off_replaces_the_time_after_a_failure() -> None:
    work = Rounds(fails=lambda number: number == 1)
    async with Periodic("test", LONG, work, observer=work, retry=Backoff(0.001, 0.001)):
        await work.reach(2)
        await turns()
    assert work.ended == ["a defect", ""]


async def test_closing_ends_a_round_in_its_middle_and_can_be_repeated() -> None:
    begun, ended = asyncio.Event(), asyncio.Event()

    async def work() -> None:
        begun.set()
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()

    rounds = Periodic("test", LONG, work)
    rounds.open()
    async with asyncio.timeout(WAIT_SECONDS):
        await begun.wait()
        await rounds.close()
        assert ended.is_set()
        await rounds.close(1.0)


async def test_one_that_was_never_opened_can_be_closed_and_asked_for_a_round() -> None:
    work = Rounds()
    rounds = Periodic("test", LONG, work, observer=work)
    await rounds.once()
    rounds.wake()
    await rounds.close()
    assert work.ended == [""]
