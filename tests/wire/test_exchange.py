"""The record of one request: its times, whether it failed, its repeats."""

from time import perf_counter

import pytest

from llmproxy.wire.exchange import Exchange, RepeatHit, RequestIds
from llmproxy.wire.vocabulary import CacheStatus, Phase


def exchange(**members: object) -> Exchange:
    made = Exchange("req_1", "POST", "/v1/chat/completions", started=perf_counter(), started_at=1.0)
    for name, value in members.items():
        setattr(made, name, value)
    return made


def test_phases_add_up_to_the_time_so_far() -> None:
    made = exchange()
    for phase in (Phase.READ, Phase.ADMIT, Phase.READ):
        made.mark(phase)
    assert list(made.phases) == [Phase.READ, Phase.ADMIT]
    assert all(seconds >= 0 for seconds in made.phases.values())
    assert sum(made.phases.values()) == pytest.approx(made.marked - made.started, abs=1e-9)


def test_times_count_from_the_start() -> None:
    made = exchange()
    assert (made.seconds, made.first_byte_seconds) == (0.0, None)
    made.first_byte, made.finished = made.started + 1.0, made.started + 2.0
    assert (made.seconds, made.first_byte_seconds) == pytest.approx((2.0, 1.0))


@pytest.mark.parametrize(
    ("status", "error", "failed"),
    [
        (200, "", False),
        (200, "broke off", True),
        (399, "broke off", True),
        (400, "no such model", False),
        (499, "the client left", False),
        (500, "", True),
        (0, "", False),
    ],
)
def test_what_counts_as_failed(status: int, error: str, failed: bool) -> None:
    assert exchange(status=status, error=error).failed is failed


def test_a_repeat_has_its_own_id_and_times() -> None:
    template = exchange(cache=CacheStatus.HIT, status=200, model="m", phases={Phase.READ: 1.0})
    repeat = RepeatHit(template, "req_2", started_at=5.0, seconds=0.25).exchange()
    assert (repeat.request_id, repeat.started_at, repeat.seconds, repeat.first_byte_seconds) == (
        "req_2",
        5.0,
        0.25,
        0.25,
    )
    assert (repeat.cache, repeat.status, repeat.model, repeat.phases) == (CacheStatus.HIT, 200, "m", {})
    assert template.phases


def test_ids_differ_within_a_process_and_between_two() -> None:
    one, other = RequestIds(), RequestIds()
    ids = [one.next(), one.next(), other.next()]
    assert len(set(ids)) == 3
    assert all(id.startswith("req_") and len(id) == 26 for id in ids)
    assert ids[0][:16] == ids[1][:16] != ids[2][:16]
