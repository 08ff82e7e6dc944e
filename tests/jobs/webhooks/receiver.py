"""Somebody who is told of jobs, on a real socket."""

import queue
import threading
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Self

from tests.timeouts import WAIT_SECONDS


@dataclass(frozen=True, slots=True)
class Delivery:
    """One request. ``headers`` have lower-case names."""

    path: str
    headers: dict[str, str]
    body: bytes


class Receiver:
    """Answers its first requests with ``statuses``, one each, and all others with 200; ``headers`` go with each.

    With ``silent`` it never answers until it is closed.
    """

    def __init__(self, *statuses: int, headers: dict[str, str] | None = None, silent: bool = False) -> None:
        self._statuses = list(statuses)
        self._headers = headers or {}
        self._silent = silent
        self._closed = threading.Event()
        self._deliveries: queue.Queue[Delivery] = queue.Queue()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)

    @property
    def host(self) -> str:
        return f"127.0.0.1:{self._server.server_port}"

    @property
    def url(self) -> str:
        return f"http://{self.host}/told"

    @property
    def quiet(self) -> bool:
        """Whether nobody was here who has not been ``taken``."""
        return self._deliveries.empty()

    def taken(self) -> Delivery:
        """The next request, waited for. Raises ``queue.Empty`` when none comes."""
        return self._deliveries.get(timeout=WAIT_SECONDS)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._closed.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                receiver._answer(self)

            def log_message(self, format: str, *arguments: object) -> None:
                """Says nothing."""

        return Handler

    def _answer(self, request: BaseHTTPRequestHandler) -> None:
        body = request.rfile.read(int(request.headers["content-length"]))
        headers = {name.lower(): value for name, value in request.headers.items()}
        status = self._statuses.pop(0) if self._statuses else 200
        self._deliveries.put(Delivery(request.path, headers, body))
        if self._silent:
            self._closed.wait(WAIT_SECONDS)
            return
        request.send_response(status)
        for name, value in {"content-length": "0", **self._headers}.items():
            request.send_header(name, value)
        request.end_headers()
