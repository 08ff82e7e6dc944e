"""The circuit breaker of one kind of work with a database: it counts faults, logs the first, and says when to try."""

import logging
import time
from collections.abc import Callable

from llmproxy.database.faults import DatabaseFault, fault_of
from llmproxy.runtime.background import Backoff, LogOnce
from llmproxy.wire.errors import ProxyError

logger = logging.getLogger(__name__)

#: takes the part that a fault keeps from its work, and the kind of the fault
OnFault = Callable[[str, DatabaseFault], object]

BACKOFF = Backoff(first=1.0, longest=30.0)


def ignore(part: str, fault: DatabaseFault) -> None:
    """An ``OnFault`` for nobody."""


class CircuitBreaker:
    """Closed while the work succeeds; open after a failure, until a pause is over that grows with each further one.

    Each kind of work has its own, because a full disk stops writing but not reading. ``part`` is what ``on_fault`` is
    told. ``fails`` and ``works`` are logged when the work fails and when it succeeds again; ``%(fault)s`` and
    ``%(error)s`` in the first stand for the kind of the fault and for the error in one line. A fault that may pass is
    the database's own warning: here it is logged for whoever debugs. ``works`` can be a function, whose line is a
    warning always. ``clock`` is monotonic, in seconds.
    """

    def __init__(
        self,
        part: str,
        on_fault: OnFault,
        *,
        fails: str,
        works: str | Callable[[], str] = "",
        backoff: Backoff = BACKOFF,
        clock: Callable[[], float] = time.monotonic,
    ):
        self._part = part
        self._on_fault = on_fault
        self._fails = fails
        self._works = works
        self._backoff = backoff
        self._clock = clock
        self._log = LogOnce(logger)
        self._failures = 0
        self._until = 0.0

    @property
    def failing(self) -> bool:
        """Whether the last try failed."""
        return self._failures > 0

    @property
    def open(self) -> bool:
        """Whether it is too early to try again."""
        return self._failures > 0 and self._clock() < self._until

    @property
    def remaining(self) -> float:
        """Seconds until it is worth trying again."""
        return max(0.0, self._until - self._clock()) if self._failures else 0.0

    def failed(self, error: BaseException) -> DatabaseFault:
        """Notes a failure, which opens the circuit. Returns the kind of the fault."""
        fault = fault_of(error)
        self._on_fault(self._part, fault)
        level = logging.DEBUG if fault.passes else logging.WARNING
        self._log.failed(self._fails, {"fault": fault, "error": _line(error)}, level=level)
        # several look-ups that fail together are one failure
        if not self.open:
            self._failures += 1
            self._until = self._clock() + self._backoff.seconds(self._failures)
        return fault

    def succeeded(self) -> None:
        """Notes a success, which closes the circuit."""
        if self._failures:
            self._failures = 0
            if isinstance(self._works, str):
                self._log.worked(self._works, level=logging.DEBUG)
            else:
                self._log.worked(self._works())


def _line(error: BaseException) -> str:
    """An error in one line, without the statement and the values that SQLAlchemy adds to it."""
    if isinstance(error, ProxyError):
        return error.message
    cause = getattr(error, "orig", None) or error
    return f"{type(cause).__name__}: {cause}".replace("\n", " ")[:200]
