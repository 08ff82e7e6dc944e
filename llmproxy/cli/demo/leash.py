"""Runs ``llmproxy`` as a child that stops when its parent is gone, however the parent ended."""

import os
import signal
import sys
import threading

from llmproxy.cli import main


def tie() -> None:
    """Asks this process to stop, as SIGTERM does, once stdin ends."""
    threading.Thread(target=_wait, name="leash", daemon=True).start()


def _wait() -> None:
    # unbuffered: a reader inside Python's buffer would hold its lock at exit
    while os.read(sys.stdin.fileno(), 4096):
        pass
    os.kill(os.getpid(), signal.SIGTERM)


if __name__ == "__main__":
    tie()
    main()
