"""Where log lines leave the program: by a thread, so that a paused terminal or a full pipe cannot stop the loop."""

import queue
import threading
from collections.abc import Callable
from typing import TextIO


class AsyncLogWriter:
    """Writes text to a stream in the order given, without ever blocking the writer.

    At most ``bound`` pieces wait; what finds no room is counted, and reported by the line ``lost(count)`` as soon as
    the stream flows again. Usable from any thread. After ``close`` pieces are written directly.
    """

    def __init__(self, stream: TextIO, *, lost: Callable[[int], str], bound: int = 1_000) -> None:
        self.stream = stream
        self._waiting: queue.Queue[str | None] = queue.Queue(bound)
        self._lost_line = lost
        self._lost = 0
        self._closed = False
        self._thread = threading.Thread(target=self._run, name="log outlet", daemon=True)
        self._thread.start()

    def write(self, text: str) -> None:
        """Takes whole lines, each with its line feed. Raises nothing."""
        if self._closed:
            # a thread that outlived its limit is stuck in the stream; nobody else should be
            if not self._thread.is_alive():
                self._put_out(text)
            return
        try:
            self._waiting.put_nowait(text)
        except queue.Full:
            self._lost += 1

    def close(self, limit: float = 2.0) -> None:
        """Waits until everything is written, at most ``limit`` seconds. Safe to call twice."""
        if self._closed:
            return
        self._closed = True
        try:
            self._waiting.put(None, timeout=limit)
        except queue.Full:
            return
        self._thread.join(limit)

    def _run(self) -> None:
        while (text := self._waiting.get()) is not None:
            lost, self._lost = self._lost, 0
            self._put_out(text + self._lost_line(lost) if lost else text)

    def _put_out(self, text: str) -> None:
        try:
            self.stream.write(text)
            self.stream.flush()
        except (OSError, ValueError):
            # The stream is gone, or cannot encode it: there is nowhere left to say so.
            self._lost += 1
