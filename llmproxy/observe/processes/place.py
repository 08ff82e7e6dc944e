"""A numbered place in a folder. One process has it at a time; the next one goes on with what the last one left.

Who has a place holds a lock on its file, which the system releases however the process ends. So nothing depends on
numbers of processes, which are given again, and mean another in each container. A folder holds as many places as there
were processes at the same time.
"""

import fcntl
import os
from contextlib import suppress
from pathlib import Path

#: processes that can share a folder
MOST = 256


class Place:
    """Made by ``take``."""

    def __init__(self, folder: Path, number: int, lock: int) -> None:
        self.name = f"llmproxy-{number}"
        self._folder = folder
        self._lock = lock

    @classmethod
    def take(cls, folder: Path) -> "Place":
        """The first free place; the folder is made if need be. Raises ``OSError``."""
        folder.mkdir(parents=True, exist_ok=True)
        refused: OSError = OSError(f"{MOST} processes share {folder} already")
        for number in range(MOST):
            try:
                lock = os.open(_lock_file(folder, f"llmproxy-{number}"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
            except PermissionError as error:
                # another user's
                refused = error
                continue
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                os.close(lock)
            except OSError:
                os.close(lock)
                raise
            else:
                return cls(folder, number, lock)
        raise refused

    @property
    def kept(self) -> bool:
        """False where somebody has removed the folder or its files: another process may have the same place now."""
        with suppress(OSError):
            return os.path.samestat(_lock_file(self._folder, self.name).stat(), os.fstat(self._lock))
        return False

    def leave(self) -> None:
        os.close(self._lock)


def forget_gauges_of_the_dead(folder: Path, name: str) -> bool:
    """Removes the gauges of a place that nobody has; whether nobody has it. Raises ``OSError``."""
    try:
        lock = os.open(_lock_file(folder, name), os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return True
    try:
        # shared, so that two who look at the same time do not take each other for its holder
        fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
        remove_gauges(folder, name)
    except BlockingIOError:
        return False
    finally:
        os.close(lock)
    return True


def remove_gauges(folder: Path, name: str) -> None:
    """Files that cannot be removed stay: nobody counts them."""
    for file in folder.glob(f"gauge_*_{name}.db"):
        with suppress(OSError):
            file.unlink()


def _lock_file(folder: Path, name: str) -> Path:
    return folder / f"{name}.lock"
