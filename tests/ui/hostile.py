"""A model server whose answers, and whose model's name, are markup that would run."""

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Self

MARKUP = "<img src=x onerror=\"window.harmed='answer'\"><script>window.harmed='script'</script>"
MODEL = "<img src=x onerror=\"window.harmed='model'\">"


class Hostile:
    """Serves until it is left."""

    def __init__(self) -> None:
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,))
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self._answer({"object": "list", "data": [{"id": MODEL, "object": "model", "created": 1, "owned_by": MARKUP}]})

    def do_POST(self) -> None:
        request = json.loads(self.rfile.read(int(self.headers["content-length"])))
        message = {"role": MARKUP, "content": MARKUP, "reasoning_content": MARKUP}
        head = {"id": MARKUP, "model": MODEL, "created": 1}
        if not request.get("stream"):
            choice = {"index": 0, "message": message, "finish_reason": "stop"}
            return self._answer({**head, "object": "chat.completion", "choices": [choice]})
        frames: list[dict[str, object]] = [
            {"delta": message, "finish_reason": None},
            {"delta": {}, "finish_reason": "stop"},
        ]
        lines = [json.dumps({**head, "choices": [{"index": 0, **frame}]}) for frame in frames]
        body = "".join(f"data: {line}\n\n" for line in [*lines, "[DONE]"])
        return self._send(body.encode(), "text/event-stream")

    def _answer(self, document: object) -> None:
        self._send(json.dumps(document).encode(), "application/json")

    def _send(self, body: bytes, media_type: str) -> None:
        self.send_response(200)
        self.send_header("content-type", media_type)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *arguments: object) -> None:
        pass
