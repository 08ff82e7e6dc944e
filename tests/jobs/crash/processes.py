"""The program's own processes on a database that several of them share."""

import re
import subprocess
import sys
import time
from pathlib import Path
from types import TracebackType
from typing import Self

from tests.server import environment
from tests.timeouts import WAIT_SECONDS

_LISTENING = re.compile(r"listening on (http://[^:\s]+:\d+)")
_WORKING = re.compile(r"working on the jobs of (\S+)")


class Process:
    """``llmproxy VERB`` in front of ``upstream`` on ``database``, a file or a URL. What it says goes into ``log``."""

    def __init__(self, verb: str, upstream: str, database: str, log: Path, *arguments: str, **settings: object) -> None:
        self.log = log
        self._output = log.open("w")
        self._child = subprocess.Popen(
            [sys.executable, "-m", "llmproxy", verb, "--upstream", upstream, "--database", database, *arguments],
            stdin=subprocess.DEVNULL,
            stdout=self._output,
            stderr=subprocess.STDOUT,
            cwd=log.parent,
            env=environment(**settings),
        )

    def said(self, words: re.Pattern[str]) -> str:
        """What the group in ``words`` stands for, once it was said. Raises ``RuntimeError`` if that takes too long."""
        deadline = time.monotonic() + WAIT_SECONDS
        while (found := words.search(self.log.read_text())) is None:
            if self._child.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"it did not say {words.pattern!r} but:\n{self.log.read_text()}")
            time.sleep(0.02)
        return found.group(1)

    def kill(self) -> None:
        """SIGKILL."""
        self._child.kill()
        self._child.wait(WAIT_SECONDS)

    def stop(self) -> None:
        """SIGTERM. Safe where it has ended."""
        self._child.terminate()
        try:
            self._child.wait(WAIT_SECONDS)
        finally:
            self._child.kill()
            self._child.wait()
            self._output.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()


class Server(Process):
    """``llmproxy serve`` without workers of its own."""

    def __init__(self, upstream: str, database: str, log: Path) -> None:
        super().__init__("serve", upstream, database, log, "--port", "0", task_queue_workers=0)

    @property
    def url(self) -> str:
        return self.said(_LISTENING)


class Worker(Process):
    """``llmproxy worker``."""

    def __init__(self, upstream: str, database: str, log: Path, calls: int) -> None:
        super().__init__("worker", upstream, database, log, "--workers", str(calls), log_format="text")

    def ready(self) -> None:
        self.said(_WORKING)
