"""What is kept, what is missed, what is not judged."""

from dataclasses import replace

import pytest

from tests.load.verdict import Limits, Seen, verdict

LIMITS = Limits(p95=5.0, errors=0.01, hit_rate=0.8, quicker=0.9)
GOOD = Seen(p95=5.0, errors=0.01, hit_rate=0.8, quicker=0.9, finished=0.01)


def kept(seen: Seen) -> list[bool | None]:
    return [check.kept for check in verdict(seen, LIMITS)]


def test_what_is_just_enough_is_kept() -> None:
    assert kept(GOOD) == [True] * 5


@pytest.mark.parametrize(
    ("position", "seen"),
    [
        (0, replace(GOOD, p95=5.001)),
        (1, replace(GOOD, errors=0.0101)),
        (2, replace(GOOD, hit_rate=0.799)),
        (3, replace(GOOD, quicker=0.899)),
        (4, replace(GOOD, finished=0.0)),
    ],
)
def test_each_limit_is_of_its_own(position: int, seen: Seen) -> None:
    assert kept(seen) == [number != position for number in range(5)]


def test_what_was_not_asked_is_not_judged() -> None:
    assert kept(replace(GOOD, hit_rate=None, quicker=None, finished=None)) == [True, True, None, None, None]


def test_a_run_without_an_answer_keeps_nothing() -> None:
    assert kept(Seen(None, None, None, None, None)) == [False, False, None, None, None]


def test_a_line_says_what_was_wanted() -> None:
    check = list(verdict(replace(GOOD, hit_rate=0.5), LIMITS))[2]
    assert check.row == ["hit rate of the hot set", "50.0%", "at least 80.0%", "MISSED"]
