"""The clock of waits and leases: one that all processes of a database share, and that nobody sets."""

import time
from contextlib import suppress
from hashlib import sha256
from pathlib import Path
from time import monotonic

from llmproxy.jobs.store import Store

#: no wait and no lease is longer: what ends later was written by the clock of another start of the machine
LONGEST_SECONDS = 86_400.0
#: seconds between those clocks: more than a machine runs; and how many starts are told apart
_APART, _STARTS = 2.5e8, 4096
#: seconds for which the database's clock is gone on with by the monotonic one
_READ_SECONDS = 5.0


class SharedClock:
    """Seconds since no particular moment.

    Where all processes run on one machine (SQLite), its monotonic clock, which they share; it begins anew with each
    start of the machine, so each start has a part of its own. Else the database's own clock.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self._offset = _offset_of_start()
        self._read_at: float | None = None

    async def __call__(self) -> float:
        """Raises ``Unavailable``."""
        if self._read_at is None or monotonic() - self._read_at > _READ_SECONDS:
            before = monotonic()
            now = await self._store.now()
            self._read_at = monotonic()
            if now is not None:
                self._offset = now - (before + self._read_at) / 2
        return monotonic() + self._offset


def _offset_of_start() -> float:
    with suppress(OSError):
        start = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return int.from_bytes(sha256(start.encode()).digest()[:4]) % _STARTS * _APART
    # no better than the clock on the wall as it was when this process began
    return time.time() - monotonic()
