"""That the demo's tour notices a proxy that is not one: one that holds a stream back."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import islice
from pathlib import Path
from typing import Any

import httpx
import openai

from llmproxy.cli.demo.servers import running
from llmproxy.cli.demo.tour import Tour

_TIMEOUT = 120.0


class _Holder(BaseHTTPRequestHandler):
    """Passes everything on to ``target``, but an answer only when it is whole, and then piece by piece."""

    def __init__(self, target: str, *rest: Any) -> None:
        self._target = target
        super().__init__(*rest)

    def do_GET(self) -> None:
        self._pass_on()

    def do_POST(self) -> None:
        self._pass_on()

    def _pass_on(self) -> None:
        body = self.rfile.read(int(self.headers.get("content-length", 0)))
        kept = {"content-type": self.headers.get("content-type", "application/json")}
        url = self._target + self.path
        with httpx.stream(self.command, url, content=body, headers=kept, trust_env=False, timeout=_TIMEOUT) as answer:
            pieces = list(answer.iter_bytes())
            self.send_response(answer.status_code)
            for name in ("content-type", "x-cache"):
                if name in answer.headers:
                    self.send_header(name, answer.headers[name])
            self.end_headers()
            for piece in pieces:
                self.wfile.write(piece)
                self.wfile.flush()

    def log_message(self, format: str, *args: object) -> None:
        pass


@contextmanager
def _holding(target: str) -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(_Holder, target)) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


def test_a_stream_that_is_held_back_is_a_flaw(tmp_path: Path) -> None:
    with (
        running(tmp_path, 0) as stack,
        _holding(stack.url) as url,
        openai.OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0) as client,
    ):
        steps = list(islice(Tour(client, replace(stack, url=url)).steps(), 5))
    assert [step.question for step in steps if step.flaw is None] == [
        "a question",
        "the same question",
        "the same stream again",
        "the same, not streamed",
    ]
    assert [step.flaw for step in steps if step.flaw] == ["should come while it is written"]
