"""What the process and the machine use, and how late the event loop is."""

import asyncio
import logging
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import psutil

from llmproxy.runtime.background import FailureLogger, Periodic

logger = logging.getLogger(__name__)

SAMPLE_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class Sample:
    """One reading. Shares of the processors are of the time since the reading before; 1 is one of them, busy."""

    #: Unix seconds
    at: float
    process_cpu: float
    process_memory_bytes: int
    threads: int
    #: files, sockets and pipes; None where the system does not tell
    open_files: int | None
    #: of all processors together: 0 to 1
    system_cpu: float
    processors: int
    system_memory_bytes: int
    system_memory_available_bytes: int


class Meter:
    """Reads the counters of the system. Blocking.

    Shares of time are between two readings; the first one's are since the start of the process, and of the machine.
    """

    def __init__(self) -> None:
        self._process = psutil.Process()
        self._read_at = time.monotonic() - (time.time() - self._process.create_time())
        self._spent = 0.0
        self._system = 0.0, 0.0

    def read(self) -> Sample:
        """Raises ``psutil.Error``, ``OSError``."""
        now, spent, system = time.monotonic(), self._process_seconds(), self._system_seconds()
        elapsed = max(now - self._read_at, 1e-3)
        busy, whole = system[0] - self._system[0], system[1] - self._system[1]
        process_cpu = (spent - self._spent) / elapsed
        self._read_at, self._spent, self._system = now, spent, system
        memory = psutil.virtual_memory()
        return Sample(
            at=time.time(),
            process_cpu=process_cpu,
            process_memory_bytes=self._process.memory_info().rss,
            threads=self._process.num_threads(),
            open_files=self._process.num_fds() if psutil.POSIX else None,
            system_cpu=min(1.0, max(0.0, busy / whole)) if whole > 0 else 0.0,
            processors=psutil.cpu_count() or 1,
            system_memory_bytes=memory.total,
            system_memory_available_bytes=memory.available,
        )

    def _process_seconds(self) -> float:
        times = self._process.cpu_times()
        return float(times.user + times.system)

    @staticmethod
    def _system_seconds() -> tuple[float, float]:
        """Seconds in which processors were busy, and all there were."""
        times = psutil.cpu_times()
        idle = times.idle + getattr(times, "iowait", 0.0)
        # guests' time is in the users' already
        whole = sum(times) - getattr(times, "guest", 0.0) - getattr(times, "guest_nice", 0.0)
        return whole - idle, whole


class Resources:
    """The newest sample."""

    def __init__(self, seconds: float = SAMPLE_SECONDS) -> None:
        failures = FailureLogger(logger, "what the system uses cannot be read; silent until it can")
        self._rounds = Periodic("resources", seconds, self.sample, observer=failures)
        self._meter = Meter()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="resources")
        #: None until the first reading, which is taken at once
        self.latest: Sample | None = None

    def open(self) -> None:
        self._rounds.open()

    async def close(self) -> None:
        """Safe to call twice."""
        await self._rounds.close()
        self._thread.shutdown(wait=False)

    async def sample(self) -> Sample:
        """A new reading. Raises ``psutil.Error``, ``OSError``."""
        self.latest = await asyncio.get_running_loop().run_in_executor(self._thread, self._meter.read)
        return self.latest


#: how long each sleep is, and how many of them are remembered: a minute
SLEEP_SECONDS, REMEMBERED = 0.5, 120


class Lag:
    """Sleeps, and tells ``on_lag`` how many seconds late it woke."""

    def __init__(self, on_lag: Callable[[float], None], seconds: float = SLEEP_SECONDS) -> None:
        self._rounds = Periodic("event loop lag", seconds, self._note, at_once=False)
        self._on_lag = on_lag
        self._seconds = seconds
        #: loop time at which the sleep is to end
        self._due = 0.0
        self._lags: deque[float] = deque(maxlen=REMEMBERED)

    @property
    def mean(self) -> float | None:
        """Seconds, over the last minute; None before the first sleep is over."""
        return sum(self._lags) / len(self._lags) if self._lags else None

    @property
    def highest(self) -> float | None:
        """Seconds, over the last minute; None before the first sleep is over."""
        return max(self._lags, default=None)

    def open(self) -> None:
        self._due = asyncio.get_running_loop().time() + self._seconds
        self._rounds.open()

    async def close(self) -> None:
        """Safe to call twice."""
        await self._rounds.close()

    async def _note(self) -> None:
        loop = asyncio.get_running_loop()
        lag = max(0.0, loop.time() - self._due)
        self._lags.append(lag)
        self._on_lag(lag)
        self._due = loop.time() + self._seconds
