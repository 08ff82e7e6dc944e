"""No body, from a client or from a model server, holds up the requests of others."""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import psutil
import pytest

from tests.conftest import sound
from tests.scripted import CHAT, marker
from tests.scripted_upstream import ScriptedUpstream
from tests.server import Line, Proxy

#: seconds of its processor's time that the server may spend between a question and its answer; what each of these
#: bodies costs on the event loop is several times as much
MOST_SECONDS = 1.0
PATHS = ["/v1/chat/completions", "/v1/embeddings", "/v1/responses", "/api/chat", "/api/completions", "/v1/messages"]


@pytest.fixture(scope="module")
def front(upstream: ScriptedUpstream, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Proxy]:
    """A server of this module's own: coverage follows everybody's, and what is measured here is processor time."""
    with Proxy(upstream.url, database=tmp_path_factory.mktemp("hostile") / "llmproxy.db") as proxy:
        yield proxy
    sound(proxy)


class Watchdog:
    """Asks for ``/health`` again and again. What counts is not time, which a busy machine stretches, but the processor
    time that the server spends in between."""

    def __init__(self, proxy: Proxy) -> None:
        self._process = psutil.Process(proxy.process.pid)
        self._line = proxy.line()
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch)
        self.worst = 0.0

    def _spent(self) -> float:
        times = self._process.cpu_times()
        return float(times.user + times.system)

    def _watch(self) -> None:
        while not self._over.is_set():
            before = self._spent()
            assert self._line.ask("GET", "/health").status == 200
            self.worst = max(self.worst, self._spent() - before)

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Raises ``AssertionError`` where the server was deaf for too long."""
        self._thread.start()
        try:
            yield
        finally:
            self._over.set()
            self._thread.join()
            self._line.close()
        assert self.worst < MOST_SECONDS


def asking(part: bytes) -> bytes:
    """A body for any endpoint, with something hostile in it."""
    start = b'{"model":"scripted","prompt":"' + marker().encode() + b'","stream":false,'
    return start + b'"messages":[{"role":"user","content":"a"}],"input":"a","x":' + part + b"}"


REQUESTS = {
    "members": lambda: asking(json.dumps({f"k{n}": n for n in range(250_000)}).encode()),
    "top members": lambda: asking(b"0," + json.dumps({f"k{n}": n for n in range(250_000)}).encode()[1:-1]),
    "exponents": lambda: asking(b"[" + b",".join([b"1e5"] * 1_000_000) + b"]"),
    "long numbers": lambda: asking(b"[" + b",".join([b"0.1234567890123456789"] * 500_000) + b"]"),
    "large integers": lambda: asking(b"[" + b",".join([b"12345678901234567890123"] * 500_000) + b"]"),
    "almost numbers": lambda: asking(b'"' + b"0.0.0.0.0.0.0a" * 3_000_000 + b'"'),
    "escapes": lambda: asking(b'1e5,"y":"' + b"\\n" * 10_000_000 + b'"'),
    "quotes": lambda: asking(b'"' + b'\\"' * 10_000_000 + b'"'),
    "a string": lambda: asking(b'"' + b"a" * 60_000_000 + b'"'),
    "combining signs": lambda: asking(b'"' + "\u0301\u0323".encode() * 5_000_000 + b'"'),
    "lists": lambda: asking(b"[" + b"[]," * 2_000_000 + b"0]"),
    "messages": lambda: asking(b"[" + b'{"role":"user","content":"a"},' * 200_000 + b"0]"),
    "brackets": lambda: b"[" * 60_000_000,
    "white space": lambda: b" " * 60_000_000,
    "no text": lambda: asking(b'"' + b"\xff" * 30_000_000 + b'"'),
}


@pytest.mark.parametrize(
    ("name", "path"), [(name, PATHS[0]) for name in REQUESTS] + [("members", path) for path in PATHS[1:]]
)
def test_requests(front: Proxy, name: str, path: str) -> None:
    body = REQUESTS[name]()
    with Watchdog(front).watching(), Line(front.port, 120) as line:
        # the scripted upstream does not read bodies as large as these
        assert line.ask("POST", path, body=body).status in (200, 400, 413, 502)


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("path", [CHAT.path, "/api/chat", "/v1/responses"])
def test_answers(front: Proxy, path: str, stream: bool) -> None:
    """A large one is fetched, kept and given again in both forms."""
    text = f"{marker()} [script:size=6000000]"
    asked = {"model": "scripted", "messages": [{"role": "user", "content": text}]}
    if path == "/v1/responses":
        asked = {"model": "scripted", "input": text}
    with Watchdog(front).watching(), Line(front.port, 120) as line:
        for form in (stream, not stream, stream, not stream):
            heard = line.ask("POST", path, body=json.dumps(asked | {"stream": form}).encode())
            assert heard.status == 200
            assert len(heard.body) > 5_000_000
