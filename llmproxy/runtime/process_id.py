"""A name for each process that uses a database, by which the others of its machine see whether it still runs."""

import os
import platform
import secrets
from contextlib import suppress
from pathlib import Path

import psutil

#: two readings of a process's start may differ by the rounding of the clock
_SAME_START_SECONDS = 2.0


def process_id() -> str:
    """A name of its own for each call: ``host:pid:start:random``."""
    return f"{_place()}:{os.getpid()}:{psutil.Process().create_time():.2f}:{secrets.token_hex(4)}"


def is_dead(name: str) -> bool:
    """Whether the process is known to be gone: it was one of this machine that does not run any more."""
    if not is_on_this_machine(name):
        return False
    try:
        _, pid, start, _ = name.rsplit(":", 3)
        return abs(psutil.Process(int(pid)).create_time() - float(start)) > _SAME_START_SECONDS
    except psutil.NoSuchProcess:
        return True
    except (ValueError, psutil.Error):
        return False


def is_stopped(name: str) -> bool:
    """Whether the process is known to stand still: it is one of this machine, and was sent SIGSTOP."""
    if not is_on_this_machine(name):
        return False
    try:
        return bool(psutil.Process(int(name.rsplit(":", 3)[1])).status() == psutil.STATUS_STOPPED)
    except (ValueError, IndexError, psutil.Error):
        return False


def is_on_this_machine(name: str) -> bool:
    """Whether the process is one of this machine and container."""
    return name.rsplit(":", 3)[0] == _place()


def _place() -> str:
    """The scope in which process ids are unique: the machine since its start, and on Linux the container.

    Neither the machine's name nor the number of a container's namespace is one of its kind: machines are cloned, and
    each numbers by itself.
    """
    boot = namespace = ""
    with suppress(OSError):
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        namespace = str(Path("/proc/self/ns/pid").readlink())
    return f"{platform.node()}/{boot}/{namespace}"
