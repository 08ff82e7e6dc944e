"""Who holds a lease: a name that says which process it is, so that one that died here is not waited for."""

import os
import platform
import secrets
from contextlib import suppress
from pathlib import Path

import psutil

#: two readings of a process's start may differ by the rounding of the clock
_SAME_START_SECONDS = 2.0


def this_worker() -> str:
    """A name of its own for each opening of the workers: ``host:pid:start:random``."""
    return f"{_place()}:{os.getpid()}:{psutil.Process().create_time():.2f}:{secrets.token_hex(4)}"


def is_dead(name: str) -> bool:
    """Whether the worker is known to be gone: it was a process of this machine that does not run any more."""
    try:
        place, pid, start, _ = name.rsplit(":", 3)
        if place != _place():
            return False
        return abs(psutil.Process(int(pid)).create_time() - float(start)) > _SAME_START_SECONDS
    except psutil.NoSuchProcess:
        return True
    except (ValueError, psutil.Error):
        return False


def _place() -> str:
    """Where process ids mean the same: the machine as it was started, and on Linux the container.

    Neither the machine's name nor the number of a container's namespace is one of its kind: machines are cloned, and
    each numbers by itself.
    """
    boot = namespace = ""
    with suppress(OSError):
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        namespace = str(Path("/proc/self/ns/pid").readlink())
    return f"{platform.node()}/{boot}/{namespace}"
