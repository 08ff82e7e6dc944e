"""What watches the running program: how requests fare, what is used, how late the loop is, what failed last."""

import time
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass

from llmproxy.database.engine import Database
from llmproxy.database.faults import DatabaseFault
from llmproxy.history.rollups import Rollups
from llmproxy.observe.metrics import Metrics
from llmproxy.observe.performance import Performance
from llmproxy.observe.process_stats import Lag, Resources

#: how long a fault stands for the state of its part
RECENT_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class LoggedFault:
    """The last fault of one part. ``kind`` is a value of a closed list; ``at`` is in Unix seconds."""

    kind: str
    at: float


class FaultLog:
    """``clock`` gives Unix seconds."""

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self._last: dict[str, LoggedFault] = {}

    def note(self, part: str, kind: str) -> None:
        """Remembers a fault. ``part`` and ``kind`` are values of closed lists."""
        self._last[part] = LoggedFault(str(kind), self._clock())

    def last(self, part: str) -> LoggedFault | None:
        return self._last.get(part)

    def failing(self, part: str) -> bool:
        """Whether it failed within the last minute."""
        fault = self._last.get(part)
        return fault is not None and self._clock() - fault.at < RECENT_SECONDS


#: the name of the database among the parts that may be at fault
DATABASE = "database"


@dataclass(frozen=True, slots=True)
class Monitoring:
    metrics: Metrics
    performance: Performance
    rollups: Rollups
    resources: Resources
    lag: Lag
    #: of cache tiers, and of the database
    faults: FaultLog

    def store_failed(self, tier: str, kind: str) -> None:
        """Counts and remembers a fault of a cache tier. ``kind`` is a value of a closed list."""
        self.metrics.store_failed(tier, kind)
        self.faults.note(tier, kind)

    def database_failed(self, part: str, fault: DatabaseFault) -> None:
        """Counts and remembers a fault of the database. ``part`` names what was to be stored or derived behind
        requests, a value of a closed list."""
        self.metrics.observing_failed(part)
        self.faults.note(DATABASE, fault)

    def show(self) -> None:
        """Hands what is known now to the metrics."""
        self.metrics.set_performance(self.performance.lost)
        if self.resources.latest is not None:
            self.metrics.set_resources(self.resources.latest)


@asynccontextmanager
async def open_monitoring(database: Database, metrics: Metrics, left: Callable[[], float]) -> AsyncIterator[Monitoring]:
    """At the end what waits is written, within the seconds that are ``left`` then; close the database after it."""
    performance = Performance()

    def failed(part: str, fault: DatabaseFault) -> None:
        monitoring.database_failed(part, fault)

    rollups = Rollups(database, performance, on_fault=failed)
    monitoring = Monitoring(metrics, performance, rollups, Resources(), Lag(metrics.loop_lagged), FaultLog())
    async with AsyncExitStack() as stack:
        rollups.open()
        stack.push_async_callback(lambda: rollups.close(left()))
        monitoring.resources.open()
        stack.push_async_callback(monitoring.resources.close)
        monitoring.lag.open()
        stack.push_async_callback(monitoring.lag.close)
        yield monitoring
