"""The one time limit for everything that a stopping program still does."""

import os
import sys
import threading
from time import monotonic

#: the requests' share ends so much earlier, so that what they leave behind can be written: of the whole, and at most
_SHARE, _MOST = 0.2, 2.0
#: what waits to be written may take so much longer than the limit, and the end of the program so much
_WRITING_SECONDS, _END_SECONDS = 0.5, 1.0
_SHORTEST = 1.0
#: what whoever is in a hurry gives to the writing of what waits
_HURRIED_SECONDS = 2.0


class Deadline:
    """From ``begin`` on, the program stops within ``seconds``: what is closed in order asks how much time is left."""

    def __init__(self, seconds: float) -> None:
        self._seconds = max(seconds, _SHORTEST)
        self._began: float | None = None
        self._hurried = False

    @property
    def for_requests(self) -> float:
        """Seconds from the beginning on for the requests in work."""
        return self._seconds - min(self._seconds * _SHARE, _MOST)

    def begin(self) -> None:
        """Starts the time limit. Only the first call counts."""
        if self._began is None:
            self._began = monotonic()

    def hurry(self) -> None:
        """Leaves the requests no more time, and the writing of what waits little. The time limit has begun."""
        self._hurried = True
        self._seconds = min(self._seconds, self._elapsed() + _HURRIED_SECONDS)

    def requests_left(self) -> float:
        """Seconds that the upstream calls under way still have."""
        return 0.0 if self._hurried else self._left(self.for_requests)

    def left(self) -> float:
        """Seconds that the writing of what waits still has."""
        return self._left(self._seconds + _WRITING_SECONDS)

    def _left(self, seconds: float) -> float:
        return max(0.0, seconds - self._elapsed())

    def _elapsed(self) -> float:
        return 0.0 if self._began is None else monotonic() - self._began


def end_process_after(deadline: Deadline) -> None:
    """Ends the process a second after ``deadline``, which has begun, even where a database or a thread hangs.

    This loses nothing that could still have been saved: rows are committed or not, jobs are claimed again.
    """
    # a thread of its own: the loop may wait for one that hangs. A daemon, for it must not itself hold up the end
    timer = threading.Timer(deadline.left() - _WRITING_SECONDS + _END_SECONDS, _end)
    timer.daemon = True
    timer.start()


def _end() -> None:
    # past the log, whose thread may hang as well
    os.write(
        sys.stderr.fileno(), b"llmproxy: something still hangs after the time for stopping; it ends with the program\n"
    )
    os._exit(0)
