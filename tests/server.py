"""The real program as a child process on a free port, and a client that speaks to it byte by byte."""

import atexit
import os
import re
import signal
import socket
import subprocess
import sys
import threading
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from types import TracebackType
from typing import Self, TypeAlias

import coverage
import h11
import psutil

from tests.fork_server import ForkedProcess, ForkServer
from tests.timeouts import WAIT_SECONDS

ProxyProcess: TypeAlias = "ForkedProcess | subprocess.Popen[str]"
ROOT = Path(__file__).parents[1]
#: settings that also work without the prefix; a developer's own must not reach a test's server
BARE = ("CACHE_MAX_SIZE", "CACHE_TTL_HOURS", "DATABASE_PATH", "DATABASE_URL", "TASK_QUEUE_WORKERS")
_LISTENING = re.compile(r"listening on http://([^:\s]+):(\d+)")


class Proxy:
    """``llmproxy serve`` in front of ``upstreams``, with a SQLite file and ``settings`` by their names.

    A process of its own, forked from one that has imported the program (``tests.fork_server``).
    Usable again after ``stop`` or ``kill``: ``start`` takes the same database and a new port.
    """

    def __init__(self, *upstreams: str, database: Path, **settings: object) -> None:
        """Of ``settings`` three are none: ``descriptors`` is how many of them the system grants at most, ``followed``
        says that coverage follows the process where it follows the tests, and with ``python_path`` a new interpreter
        is started, to which modules in that folder come before all others."""
        self.database = database
        self._python_path = settings.pop("python_path", None)
        self._followed = bool(settings.pop("followed", False))
        descriptors = settings.pop("descriptors", None)
        self._descriptors = None if descriptors is None else int(str(descriptors))
        self.port = 0
        self._arguments = [*(part for url in upstreams for part in ("--upstream", url))]
        # a flag would win over the URL in the environment
        self._arguments += ["--port", "0", *(() if "database_url" in settings else ("--database", str(database)))]
        self.settings = settings
        self._process: ProxyProcess | None = None
        self._lines: list[str] = []
        self._reader: threading.Thread | None = None
        self._listening = threading.Event()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def log(self) -> str:
        """Everything it has printed so far."""
        return "".join(self._lines)

    @property
    def resident(self) -> int:
        """Bytes of memory it holds now."""
        return int(psutil.Process(self.process.pid).memory_info().rss)

    @property
    def process(self) -> ProxyProcess:
        assert self._process is not None, "the proxy was not started"
        return self._process

    def start(self) -> Self:
        """Returns when it listens. Raises ``RuntimeError`` with its output if it does not."""
        self._listening.clear()
        self._process = self._started()
        self._reader = threading.Thread(target=self._read, args=(self._process,), daemon=True)
        self._reader.start()
        if not self._listening.wait(WAIT_SECONDS) or self.port == 0:
            self.kill()
            raise RuntimeError(f"the proxy does not listen; it printed:\n{self.log}")
        return self

    def _started(self) -> ProxyProcess:
        arguments, folder, variables = ["serve", *self._arguments], self.database.parent, environment(**self.settings)
        if self._followed and coverage.Coverage.current() is not None:
            variables["COVERAGE_PROCESS_START"] = str(ROOT / "pyproject.toml")
            variables["COVERAGE_FILE"] = str(ROOT / ".coverage")
        if self._python_path is None:
            return ForkedProcess(fork_server(), arguments, cwd=folder, env=variables, descriptors=self._descriptors)
        variables["PYTHONPATH"] = f"{self._python_path}{os.pathsep}{variables['PYTHONPATH']}"
        return subprocess.Popen(
            [sys.executable, "-m", "llmproxy", *arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            text=True,
            cwd=folder,
            env=variables,
        )

    def _read(self, process: ProxyProcess) -> None:
        assert process.stdout is not None
        self.port = 0
        for line in process.stdout:
            self._lines.append(line)
            if not self.port and (found := _LISTENING.search(line)):
                self.port = int(found.group(2))
                self._listening.set()
        self._listening.set()

    def stop(self) -> None:
        """SIGTERM, as an operator stops it. Raises ``subprocess.TimeoutExpired`` when it does not end."""
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        """SIGKILL."""
        self._end(signal.SIGKILL)

    def _end(self, how: signal.Signals) -> None:
        if self._process is None:
            return
        self._process.send_signal(how)
        try:
            self._process.wait(WAIT_SECONDS)
        finally:
            if self._process.poll() is None:
                self._process.kill()
                self._process.wait()
            if self._reader is not None:
                self._reader.join()
            if self._process.stdout is not None:
                self._process.stdout.close()
            self._process = None

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def line(self) -> "Line":
        """A new connection to it."""
        return Line(self.port)


@cache
def fork_server() -> ForkServer:
    """The one of this process. It ends with it."""
    server = ForkServer(environment())
    atexit.register(server.close)
    return server


def environment(**settings: object) -> dict[str, str]:
    """This process's environment without any setting of the program, plus ``settings``."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("LLMPROXY_")}
    for name in BARE:
        clean.pop(name, None)
    spec = find_spec("llmproxy")
    assert spec is not None
    assert spec.origin is not None
    clean["PYTHONPATH"] = str(Path(spec.origin).parent.parent)
    clean["PYTHONUNBUFFERED"] = "1"
    # on a machine that is busy with tests a model server answers late, and a hit must not become a miss for that
    clean["LLMPROXY_IDENTITY_WAIT"] = "5"
    return clean | {f"LLMPROXY_{name.upper()}": str(value) for name, value in settings.items()}


class Line:
    """One connection, blocking and with a time limit. Sends what it is told to, byte by byte; reads with h11."""

    def __init__(self, port: int, seconds: float = WAIT_SECONDS) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), seconds)
        self.port = port
        self._protocol = h11.Connection(h11.CLIENT)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        self.socket.close()

    def send(self, data: bytes) -> None:
        """Bytes that h11 would refuse to write. Only ``rest`` can read the answer."""
        self.socket.sendall(data)

    def rest(self) -> bytes:
        """Everything until the server closes."""
        return b"".join(iter(lambda: self.socket.recv(65536), b""))

    def ask(self, method: str, target: str, headers: list[tuple[str, str]] | None = None, body: bytes = b"") -> "Heard":
        """A whole request with exactly these headers (plus host and, for a body, content-length), and its answer."""
        self.request(method, target, headers, body)
        return self.answer()

    def request(
        self, method: str, target: str, headers: list[tuple[str, str]] | None = None, body: bytes = b""
    ) -> None:
        """Sends the request and reads nothing."""
        if self._protocol.our_state is h11.DONE:
            self._protocol.start_next_cycle()
        given = list(headers or [])
        names = {name.lower() for name, _ in given}
        if "host" not in names:
            given.insert(0, ("host", f"127.0.0.1:{self.port}"))
        if body and not names & {"content-length", "transfer-encoding"}:
            given.append(("content-length", str(len(body))))
        events: list[h11.Event] = [h11.Request(method=method, target=target, headers=given)]
        if body:
            events.append(h11.Data(data=body))
        events.append(h11.EndOfMessage())
        self.send(b"".join(self._protocol.send(event) or b"" for event in events))

    def head(self) -> h11.Response:
        """The answer's status and headers; interim responses are passed over."""
        while not isinstance(event := self._event(), h11.Response):
            pass
        return event

    def data(self) -> bytes | None:
        """The next piece of the body, None at its end. Raises ``h11.RemoteProtocolError`` when it breaks off."""
        event = self._event()
        return bytes(event.data) if isinstance(event, h11.Data) else None

    def answer(self) -> "Heard":
        head = self.head()
        return Heard(head, b"".join(iter(self.data, None)))

    def _event(self) -> h11.Event:
        while (event := self._protocol.next_event()) is h11.NEED_DATA:
            self._protocol.receive_data(self.socket.recv(65536))
        assert not isinstance(event, type)
        return event


class Heard:
    """An answer read from a ``Line``."""

    def __init__(self, head: h11.Response, body: bytes) -> None:
        self.status = head.status_code
        self.headers = [(name.decode("latin-1"), value.decode("latin-1")) for name, value in head.headers]
        self.body = body

    def all(self, name: str) -> list[str]:
        """Every value of a header, in order."""
        return [value for given, value in self.headers if given == name.lower()]

    def first(self, name: str) -> str | None:
        return next(iter(self.all(name)), None)
