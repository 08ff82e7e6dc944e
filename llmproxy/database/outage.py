"""One fault of a database is one warning, with its cause, however many parts of the program meet it."""

import logging
from enum import StrEnum
from math import inf
from time import monotonic

from llmproxy.database.faults import DEFECTS, fault_of
from llmproxy.wire.errors import ProxyError

log = logging.getLogger(__name__)


class DatabaseUse(StrEnum):
    """What a database is used for: each may fail alone, as a full disk stops writing and not reading."""

    OPENING = "be opened"
    READING = "be read"
    WRITING = "be written"


class OutageLog:
    """Logs the first fault, and when all that failed, and writing, work again.

    What uses the database logs faults no more.

    ``place`` names the database for people.
    """

    def __init__(self, place: str) -> None:
        self._place = place
        self._failing: set[DatabaseUse] = set()
        #: monotonic
        self._failed_at = self._recovered_at = -inf

    def failed(self, use: DatabaseUse, error: BaseException, began: float) -> None:
        """Notes an error that came out of the database, or out of work with it. Defects of that work are none.

        ``began``: when the work did (monotonic). What began before the last outage was over still belongs to that one.
        """
        if isinstance(error, (*DEFECTS, ProxyError)) or not fault_of(error).passes or began < self._recovered_at:
            return
        if not self._failing:
            message = "the database %s cannot %s (%s: %s); requests go on without it, jobs wait"
            log.warning(message, self._place, use, fault_of(error), cause_of(error))
        # connections that were open before a file went away still read it: only what is written shows that all is well
        self._failing |= {use, DatabaseUse.WRITING}
        self._failed_at = monotonic()

    def worked(self, use: DatabaseUse, began: float) -> None:
        """Notes a success of work that ``began`` then (monotonic). What began before the last fault says nothing."""
        if self._failing and began > self._failed_at:
            self._failing.discard(use)
            if use is not DatabaseUse.OPENING:
                # who reads or writes has opened it
                self._failing.discard(DatabaseUse.OPENING)
            if not self._failing:
                self._recovered_at = monotonic()
                log.warning("the database %s works again", self._place)


def cause_of(error: BaseException) -> str:
    """What lies behind an error, in one line: the operating system's, the driver's or the server's own message, without
    the statement and the values that SQLAlchemy adds."""
    while error.__cause__ is not None:
        error = error.__cause__
    error = getattr(error, "orig", None) or error
    text = " ".join(str(error).split()) or type(error).__name__
    # SQLite's own word is more precise than its message
    word = getattr(error, "sqlite_errorname", "")
    return f"{text}, {word}"[:300] if word else text[:300]
