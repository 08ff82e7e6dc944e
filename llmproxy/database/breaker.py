"""What a tier does about a database that fails: count it, log it once, leave it alone for a while, try again."""

import logging
from collections.abc import Callable

from llmproxy.database.faults import DatabaseFault, fault_of

logger = logging.getLogger(__name__)

#: told of every fault: the tier's name and the fault's kind
OnFault = Callable[[str, str], None]

#: seconds of rest after the first fault; doubled by each further one
_FIRST_REST = 1.0
_LONGEST_REST = 30.0


class CircuitBreaker:
    """Of one kind of work, since a full disk stops writing but not reading.

    ``clock`` is monotonic, in seconds.
    """

    def __init__(self, tier: str, work: str, on_fault: OnFault, clock: Callable[[], float]):
        self._tier = tier
        self._work = work
        self._on_fault = on_fault
        self._clock = clock
        self._rest = 0.0
        self._until = 0.0

    @property
    def resting(self) -> bool:
        """Whether it is too early to try again."""
        return self._rest > 0 and self._clock() < self._until

    @property
    def remaining(self) -> float:
        """Seconds until it is worth trying again."""
        return max(0.0, self._until - self._clock()) if self._rest > 0 else 0.0

    def failed(self, error: BaseException) -> DatabaseFault:
        """Notes a fault and begins a rest. Returns its kind."""
        fault = fault_of(error)
        self._on_fault(self._tier, fault)
        if self._rest == 0:
            logger.warning("%s tier: %s fails (%s): %s", self._tier, self._work, fault, _line(error))
        # several look-ups that fail together are one failure
        if not self.resting:
            self._rest = min(max(self._rest * 2, _FIRST_REST), _LONGEST_REST)
            self._until = self._clock() + self._rest
        return fault

    def worked(self) -> None:
        """Notes that the work can be done, and ends any rest."""
        if self._rest > 0:
            self._rest = 0.0
            logger.info("%s tier: %s works again", self._tier, self._work)


def _line(error: BaseException) -> str:
    """An error in one line, without the statement and the values that SQLAlchemy adds to it."""
    cause = getattr(error, "orig", None) or error
    return f"{type(cause).__name__}: {cause}".replace("\n", " ")[:200]
