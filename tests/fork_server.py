"""Starts the program by forking a process that has imported it, for less than a tenth of what a new interpreter costs.

``python -m tests.fork_server FD`` is that process; it takes its orders from the socket FD, one message each.
"""

import gc
import importlib
import json
import math
import os
import resource
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import coverage

from llmproxy.cli import VERBS, main
from llmproxy.database.engine import DIALECTS

#: what a server imports by name and not at its start
PRELOADED = ("aiosqlite", "uvloop")
_MESSAGE = 1 << 20


class ForkServer:
    """The process that forks, and orders to it: one at a time, each answered at once."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        self._socket, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._turn = threading.Lock()
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "tests.fork_server", str(theirs.fileno())],
                stdin=subprocess.DEVNULL,
                pass_fds=[theirs.fileno()],
                cwd=Path(__file__).parents[1],
                env=environment,
            )

    def order(self, verb: str, argument: object, *descriptors: int) -> Any:
        """Raises ``ConnectionError`` if the process is gone."""
        with self._turn:
            socket.send_fds(self._socket, [json.dumps([verb, argument]).encode()], descriptors)
            answer = self._socket.recv(_MESSAGE)
        if not answer:
            raise ConnectionError("the fork server is gone")
        return json.loads(answer)

    def close(self) -> None:
        self._socket.close()
        self._process.wait()


class ForkedProcess:
    """``llmproxy`` with these arguments. Has the members of ``subprocess.Popen`` that tests use."""

    def __init__(
        self,
        server: ForkServer,
        arguments: Sequence[str],
        *,
        cwd: Path,
        env: Mapping[str, str],
        descriptors: int | None = None,
    ) -> None:
        """``descriptors``: how many the system grants to it at most."""
        self._server = server
        reading, writing = os.pipe()
        order = {"arguments": [*arguments], "folder": str(cwd), "environment": dict(env), "descriptors": descriptors}
        try:
            self.pid: int = server.order("start", order, writing)
        finally:
            os.close(writing)
        #: what it prints, to either stream
        self.stdout = os.fdopen(reading)
        self.returncode: int | None = None

    def poll(self) -> int | None:
        if self.returncode is None:
            self.returncode = self._server.order("poll", self.pid)
        return self.returncode

    def wait(self, timeout: float = math.inf) -> int:
        """The exit status. Raises ``subprocess.TimeoutExpired`` after ``timeout`` seconds."""
        end, pause = time.monotonic() + timeout, 0.001
        while (status := self.poll()) is None:
            if time.monotonic() > end:
                raise subprocess.TimeoutExpired("llmproxy", timeout)
            time.sleep(pause)
            pause = min(pause * 2, 0.02)
        return status

    def send_signal(self, number: signal.Signals) -> None:
        # an ended process keeps its id until it was asked for its exit status
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)


def _serve_orders(control: socket.socket) -> None:
    """Returns in a new process that is to be the program, or raises ``SystemExit`` when nobody gives orders any more.

    A fork copies one thread only, so there must be no other. Programs that outlive the tests, because those were
    killed, are killed here.
    """
    running: set[int] = set()
    while True:
        message, descriptors, _, _ = socket.recv_fds(control, _MESSAGE, 1)
        if not message:
            for process in running:
                os.kill(process, signal.SIGKILL)
            raise SystemExit
        verb, argument = json.loads(message)
        if verb == "poll":
            ended, status = os.waitpid(argument, os.WNOHANG)
            answer = os.waitstatus_to_exitcode(status) if ended else None
            running.discard(ended)
        else:
            answer = os.fork()
            if answer == 0:
                control.close()
                _become(descriptors[0], **argument)
                return
            running.add(answer)
            os.close(descriptors[0])
        control.send(json.dumps(answer).encode())


def _become(
    output: int, *, arguments: list[str], folder: str, environment: dict[str, str], descriptors: int | None
) -> None:
    """Makes this process what ``subprocess.Popen`` would have made of it."""
    for stream in (1, 2):
        os.dup2(output, stream)
    os.close(output)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    sys.argv = ["llmproxy", *arguments]
    if descriptors is not None:
        resource.setrlimit(resource.RLIMIT_NOFILE, (descriptors, descriptors))
    # does nothing but where the environment asks for it
    coverage.process_startup()


if __name__ == "__main__":
    # Ctrl-C goes to every process of a terminal; this one ends with the tests
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    verbs = {verb.module for verb in VERBS if verb.name in ("serve", "worker")}
    for module in (*verbs, *(path.partition(":")[0] for path in DIALECTS.values()), *PRELOADED):
        importlib.import_module(module)
    assert threading.active_count() == 1
    gc.collect()
    gc.freeze()
    _serve_orders(socket.socket(fileno=int(sys.argv[1])))
    main()
