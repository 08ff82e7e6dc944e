"""Counting every fault, logging the first, resting longer and longer."""

import logging

import pytest
from sqlalchemy.exc import DBAPIError

from llmproxy.database.breaker import CircuitBreaker
from llmproxy.database.faults import DatabaseFault
from tests.cache.entries import Clock, Faults


def test_rests_grow_to_a_bound_and_end_with_the_first_success() -> None:
    clock, faults = Clock(), Faults()
    health = CircuitBreaker("sql", "reading", faults, clock)
    rests = []
    for _ in range(7):
        assert health.failed(TimeoutError()) is DatabaseFault.TIMEOUT
        rests.append((health.resting, health.remaining))
        clock.now += health.remaining
    assert rests == [(True, seconds) for seconds in (1, 2, 4, 8, 16, 30, 30)]
    health.worked()
    assert health.remaining == 0
    health.failed(TimeoutError())
    assert health.remaining == 1
    assert faults.kinds == ["timeout"] * 8


def test_faults_at_the_same_time_are_one_reason_to_rest() -> None:
    clock, faults = Clock(), Faults()
    health = CircuitBreaker("sql", "reading", faults, clock)
    for _ in range(50):
        health.failed(OSError())
    assert health.remaining == 1
    assert len(faults.kinds) == 50


def test_logged_once_until_it_works_again(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    clock = Clock()
    health = CircuitBreaker("sql", "reading", Faults(), clock)
    for _ in range(2):
        for _ in range(3):
            health.failed(OSError("no route"))
            clock.now += 100
        health.worked()
        health.worked()
    assert [record.levelname for record in caplog.records] == ["WARNING", "INFO"] * 2
    assert caplog.messages[0] == "sql tier: reading fails (unreachable): OSError: no route"


def test_what_is_logged_holds_no_values(caplog: pytest.LogCaptureFixture) -> None:
    error = DBAPIError("INSERT INTO t VALUES (?)", ["a secret answer"], OSError("two\nlines"))
    CircuitBreaker("sql", "writing", Faults(), Clock()).failed(error)
    assert caplog.messages == ["sql tier: writing fails (unreachable): OSError: two lines"]
