"""What the proxy's process uses: read from the system where it runs on this machine, else from its ``/metrics``."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from ipaddress import ip_address

import httpx
import psutil

from llmproxy.cli.format import NOTHING

_TIMEOUT = 5.0
#: how the process may be called; what else listens on its port is the end of a tunnel or of a container's network
_OURS = ("python", "llmproxy")
_CPU, _MEMORY = "process_cpu_seconds_total", "process_resident_memory_bytes"


@dataclass(frozen=True)
class UsageSample:
    """``at`` is monotonic, ``cpu`` the processor time since the process began, both in seconds; ``memory`` in bytes."""

    at: float
    cpu: float
    memory: int


@dataclass(frozen=True)
class Used:
    """``cpu`` is a share of the time, 1 for one processor; ``memory`` the most that was seen, in bytes."""

    cpu: float
    memory: int


class ProcessUsage:
    """Readings of one process, from the first to the last. Blocking."""

    def __init__(self, url: str) -> None:
        process = serving(url)
        self._read: Callable[[], tuple[float, int] | None] = (
            (lambda: from_system(process)) if process else (lambda: from_metrics(url))
        )
        self._first: UsageSample | None = None
        self._last: UsageSample | None = None
        self._most = 0

    def read(self) -> None:
        """Takes a reading; one that cannot be had is left out."""
        now = self._read()
        if now is None:
            return
        self._last = UsageSample(time.monotonic(), *now)
        self._first = self._first or self._last
        self._most = max(self._most, self._last.memory)

    @property
    def used(self) -> Used | None:
        """None where two readings could not be had."""
        if self._first is None or self._last is None or self._last.at <= self._first.at:
            return None
        spent = self._last.cpu - self._first.cpu
        return Used(spent / (self._last.at - self._first.at), self._most)


def serving(url: str) -> psutil.Process | None:
    """The process of this machine that serves ``url``; None where it is another's, or cannot be looked at."""
    where = httpx.URL(url)
    if not _is_here(where.host):
        return None
    port = where.port or (443 if where.scheme == "https" else 80)
    # process by process: a table of all connections at once is for root only on some systems
    for process in psutil.process_iter(["name"]):
        if (process.info["name"] or "").lower().startswith(_OURS) and _listens(process, port):
            return process
    return None


def _is_here(host: str) -> bool:
    try:
        return host == "localhost" or ip_address(host).is_loopback
    except ValueError:
        return False


def _listens(process: psutil.Process, port: int) -> bool:
    try:
        connections = process.net_connections("tcp")
    except psutil.Error:
        return False
    return any(each.status == psutil.CONN_LISTEN and each.laddr.port == port for each in connections)


def from_system(process: psutil.Process) -> tuple[float, int] | None:
    """Seconds of processor time and bytes of memory; None where they cannot be had."""
    try:
        with process.oneshot():
            times = process.cpu_times()
            return times.user + times.system, process.memory_info().rss
    except psutil.Error:
        return None


def from_metrics(url: str) -> tuple[float, int] | None:
    """The same, as the process tells of itself."""
    try:
        text = httpx.get(f"{url}/metrics", trust_env=False, timeout=_TIMEOUT).raise_for_status().text
    except httpx.HTTPError:
        return None
    values = {name: value for name, _, value in (line.partition(" ") for line in text.splitlines())}
    if _CPU not in values or _MEMORY not in values:
        return None
    return float(values[_CPU]), int(float(values[_MEMORY]))


def usage_text(used: Used | None) -> str:
    """What the proxy's process used, for people."""
    if used is None:
        return f"{NOTHING} (its process cannot be looked at from here)"
    return f"{used.cpu:.0%} of a processor, at most {used.memory / 1e6:,.0f} MB of memory"
