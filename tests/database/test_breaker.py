"""Counting every fault, logging the first, staying open longer and longer."""

import logging
import sqlite3

import pytest
from sqlalchemy.exc import DBAPIError

from llmproxy.database.breaker import BACKOFF, CircuitBreaker
from llmproxy.database.faults import DatabaseFault
from tests.cache.entries import Faults
from tests.clock import Clock

FAILS, WORKS = "reading fails (%(fault)s): %(error)s", "reading works again"


def breaker(clock: Clock, faults: Faults) -> CircuitBreaker:
    return CircuitBreaker("sql", faults, fails=FAILS, works=WORKS, clock=clock)


def test_pauses_grow_to_a_bound_and_end_with_the_first_success() -> None:
    clock, faults = Clock(), Faults()
    circuit = breaker(clock, faults)
    pauses = []
    for _ in range(7):
        assert circuit.failed(TimeoutError()) is DatabaseFault.TIMEOUT
        assert circuit.open
        pauses.append(circuit.remaining)
        clock.now += circuit.remaining
        assert not circuit.open
    longest = [1, 2, 4, 8, 16, 30, 30]
    assert all(most / 2 <= pause <= most for pause, most in zip(pauses, longest, strict=True))
    circuit.succeeded()
    assert (circuit.failing, circuit.remaining) == (False, 0)
    circuit.failed(TimeoutError())
    assert circuit.remaining <= BACKOFF.first
    assert faults.kinds == ["timeout"] * 8


def test_faults_at_the_same_time_are_one_reason_to_rest() -> None:
    clock, faults = Clock(), Faults()
    circuit = breaker(clock, faults)
    for _ in range(50):
        circuit.failed(OSError())
    assert circuit.remaining <= BACKOFF.first
    assert len(faults.kinds) == 50


def test_logged_once_until_it_works_again(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, "llmproxy.database.breaker")
    clock = Clock()
    circuit = breaker(clock, Faults())
    for _ in range(2):
        for _ in range(3):
            circuit.failed(OSError("no route"))
            clock.now += 100
        circuit.succeeded()
        circuit.succeeded()
    assert caplog.messages == ["reading fails (unreachable): OSError: no route", "reading works again"] * 2
    # the warning is the database's
    assert {record.levelno for record in caplog.records} == {logging.DEBUG}


def test_what_the_database_refuses_is_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    breaker(Clock(), Faults()).failed(sqlite3.IntegrityError("NULL"))
    assert [record.levelno for record in caplog.records] == [logging.WARNING]


def test_what_is_logged_holds_no_values(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, "llmproxy.database.breaker")
    error = DBAPIError("INSERT INTO t VALUES (?)", ["a secret answer"], OSError("two\nlines"))
    breaker(Clock(), Faults()).failed(error)
    assert caplog.messages == ["reading fails (unreachable): OSError: two lines"]
