#!/usr/bin/env python3
"""Runs `llmproxy` under a sampling profiler, to see what a request's CPU time is spent on.

    python bench/sampled.py FILE serve --upstream http://127.0.0.1:9100 ...

Every 2 ms of the process's CPU time each thread's stack is looked at, and the thread's CPU time since then counts for
the innermost file of the package on it. SIGUSR1 starts counting anew, SIGUSR2 writes the seconds by thread and file as
JSON to FILE.
"""

import asyncio.runners
import json
import re
import signal
import sys
import threading
import time
from collections import Counter
from pathlib import Path
from types import FrameType

import llmproxy
from llmproxy.cli import main

SECONDS = 0.002
PACKAGE = str(Path(llmproxy.__file__).parent) + "/"
#: uvicorn's and uvloop's own work; what threads do that is none of ours
LOOP, ELSEWHERE = "server and event loop", "elsewhere"


class Samples:
    """Seconds of CPU time by thread and place."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._seconds: Counter[str] = Counter()
        #: identity of a thread -> its CPU time at the last sample
        self._clocks: dict[int, float] = {}

    def install(self) -> None:
        """Starts sampling; must be called in the main thread."""
        signal.signal(signal.SIGPROF, self._sample)
        signal.signal(signal.SIGUSR1, lambda *_: self._seconds.clear())
        signal.signal(signal.SIGUSR2, lambda *_: self._file.write_text(json.dumps(self._seconds)))
        signal.setitimer(signal.ITIMER_PROF, SECONDS, SECONDS)

    def _sample(self, _: int, main: FrameType | None) -> None:
        # the stacks first: this handler's own frames must not be among them
        stacks = sys._current_frames() | {threading.get_ident(): main}
        clocks = {}
        for thread in threading.enumerate():
            if (ident := thread.ident) not in stacks:
                continue
            clocks[ident] = time.clock_gettime(time.pthread_getcpuclockid(ident))
            spent = clocks[ident] - self._clocks.get(ident, clocks[ident])
            if spent > 0:
                self._seconds[_place(thread, stacks[ident])] += spent
        self._clocks = clocks


def _place(thread: threading.Thread, frame: FrameType | None) -> str:
    """The innermost file of the package, on the main thread between it and the event loop."""
    is_main = thread is threading.main_thread()
    prefix = "" if is_main else re.sub(r"[-_]?\d+", "", thread.name) + ": "
    while frame is not None:
        name = frame.f_code.co_filename
        if name == asyncio.runners.__file__:
            break
        if name.startswith(PACKAGE):
            return prefix + name.removeprefix(PACKAGE)
        frame = frame.f_back
    return prefix + (LOOP if is_main else ELSEWHERE)


if __name__ == "__main__":
    Samples(Path(sys.argv[1])).install()
    sys.argv[1:] = sys.argv[2:]
    sys.exit(main())
