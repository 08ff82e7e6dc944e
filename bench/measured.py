"""A server under measurement: where it listens, what to send it, and what its processes consume (Linux's /proc)."""

import os
import re
import urllib.parse
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

PROC = Path("/proc")
_TICK = os.sysconf("SC_CLK_TCK")


@dataclass
class Cpu:
    """CPU time of a process tree: in clock ticks, and finer by thread, which ends with the thread."""

    seconds: float
    threads: dict[str, int]

    def since(self, before: "Cpu") -> float:
        """Seconds spent since ``before``."""
        if set(before.threads) <= set(self.threads):
            return sum(ns - before.threads.get(thread, 0) for thread, ns in self.threads.items()) / 1e9
        return self.seconds - before.seconds


@dataclass
class Target:
    """One server, on the loopback interface only. ``modes`` empty: all of them."""

    name: str
    url: str
    path: str = "/v1/chat/completions"
    model: str = "gpt-4o-mini"
    headers: dict[str, str] = field(default_factory=dict)
    #: whether identical requests are answered from a store
    caches: bool = True
    modes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        parts = urllib.parse.urlsplit(self.url)
        if parts.hostname not in ("127.0.0.1", "localhost", "::1"):
            raise SystemExit(f"{self.url}: only loopback addresses are measured")
        self.host, self.port = parts.hostname, parts.port or 80
        self.full_path = parts.path.rstrip("/") + self.path

    @classmethod
    def parse(cls, text: str) -> "Target":
        """``NAME=URL[,path=P][,model=M][,header=K: V][,nocache=1][,modes=hit+miss]``"""
        name, _, rest = text.partition("=")
        url, *options = rest.split(",")
        target = cls(name, url)
        for option in options:
            key, _, value = option.partition("=")
            if key == "path":
                target.path = value
            elif key == "model":
                target.model = value
            elif key == "header":
                header, _, content = value.partition(":")
                target.headers[header.strip()] = content.strip()
            elif key == "nocache":
                target.caches = value in ("", "0")
            elif key == "modes":
                target.modes = tuple(value.split("+"))
            else:
                raise SystemExit(f"{text}: what is {key!r}?")
        target.__post_init__()
        return target

    def takes(self, mode: str) -> bool:
        return not self.modes or mode in self.modes

    def processes(self) -> set[int]:
        """Whoever listens on the port, and all their children."""
        children: dict[int, list[int]] = {}
        for pid in _pids():
            stat = _read(PROC / str(pid) / "stat")
            if stat:
                children.setdefault(int(stat.rpartition(")")[2].split()[1]), []).append(pid)
        found: set[int] = set()
        waiting = list(_listeners(self.port))
        while waiting:
            pid = waiting.pop()
            if pid not in found:
                found.add(pid)
                waiting += children.get(pid, [])
        return found

    def cpu(self, processes: set[int]) -> Cpu:
        ticks, threads = 0, {}
        for pid in processes:
            stat = _read(PROC / str(pid) / "stat")
            if not stat:
                continue
            fields = stat.rpartition(")")[2].split()
            ticks += int(fields[11]) + int(fields[12])
            for task in (PROC / str(pid) / "task").iterdir():
                if schedule := _read(task / "schedstat"):
                    threads[task.name] = int(schedule.split()[0])
        return Cpu(ticks / _TICK, threads)

    def memory(self) -> float:
        """Proportional set size of the process tree in MB."""
        total = 0
        for pid in self.processes():
            if match := re.search(r"^Pss:\s+(\d+)", _read(PROC / str(pid) / "smaps_rollup"), re.M):
                total += int(match[1])
        return total / 1024


def _pids() -> list[int]:
    return [int(entry.name) for entry in PROC.iterdir() if entry.name.isdigit()]


def _read(path: Path) -> str:
    """The text, or "" where the process is gone."""
    try:
        return path.read_text()
    except OSError:
        return ""


def _listeners(port: int) -> set[int]:
    inodes = set()
    for table in ("tcp", "tcp6"):
        for line in _read(PROC / "net" / table).splitlines()[1:]:
            columns = line.split()
            if columns[3] == "0A" and int(columns[1].rpartition(":")[2], 16) == port:
                inodes.add(f"socket:[{columns[9]}]")
    return {pid for pid in _pids() if inodes & _sockets(pid)}


def _sockets(pid: int) -> set[str]:
    try:
        descriptors = os.listdir(f"/proc/{pid}/fd")
    except OSError:
        return set()
    found = set()
    for descriptor in descriptors:
        # connections come and go while this is read
        with suppress(OSError):
            found.add(os.readlink(f"/proc/{pid}/fd/{descriptor}"))
    return found
