"""One fault of a database is one warning, however often and by whomever it is met."""

import sqlite3
from time import monotonic

import pytest
from sqlalchemy.exc import OperationalError

from llmproxy.database.faults import DatabaseUnusable
from llmproxy.database.outage import DatabaseUse, OutageLog, cause_of
from llmproxy.wire.errors import Unavailable


def locked() -> OperationalError:
    """As SQLAlchemy wraps it, with the statement and its values."""
    error = sqlite3.OperationalError("database is locked")
    error.sqlite_errorcode, error.sqlite_errorname = sqlite3.SQLITE_BUSY, "SQLITE_BUSY"
    wrapped = OperationalError("INSERT INTO t VALUES (?)", ["a secret"], error)
    wrapped.__cause__ = error
    return wrapped


def test_the_first_fault_and_the_end_are_logged(caplog: pytest.LogCaptureFixture) -> None:
    log, began = OutageLog("x.db"), monotonic()
    log.worked(DatabaseUse.READING, monotonic())
    log.failed(DatabaseUse.OPENING, FileNotFoundError(2, "No such file or directory", "x.db"), began)
    log.failed(DatabaseUse.READING, TimeoutError(), began)
    # it began before the fault
    log.worked(DatabaseUse.WRITING, began)
    # by a connection that was open before
    log.worked(DatabaseUse.READING, monotonic())
    log.failed(DatabaseUse.WRITING, locked(), began)
    log.worked(DatabaseUse.READING, monotonic())
    log.worked(DatabaseUse.WRITING, monotonic())
    log.worked(DatabaseUse.WRITING, monotonic())
    # work that began before the end still belongs to it
    log.failed(DatabaseUse.WRITING, locked(), began)
    assert caplog.messages == [
        "the database x.db cannot be opened (unreachable: [Errno 2] No such file or directory: 'x.db'); "
        "requests go on without it, jobs wait",
        "the database x.db works again",
    ]


def test_defects_and_what_was_refused_or_translated_are_no_outage(caplog: pytest.LogCaptureFixture) -> None:
    log = OutageLog("x.db")
    for error in (KeyError("x"), sqlite3.IntegrityError("NULL"), Unavailable("not now")):
        log.failed(DatabaseUse.WRITING, error, monotonic())
    assert caplog.messages == []


@pytest.mark.parametrize(
    ("error", "cause"),
    [
        (locked(), "database is locked, SQLITE_BUSY"),
        (OSError(28, "No space left on device"), "[Errno 28] No space left on device"),
        (TimeoutError(), "TimeoutError"),
        (DatabaseUnusable("two\nlines"), "two lines"),
    ],
)
def test_the_cause_is_a_line_without_values(error: Exception, cause: str) -> None:
    assert cause_of(error) == cause
