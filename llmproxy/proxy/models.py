"""``GET /v1/models`` and ``/v1/models/{id}``: the union over the upstreams, one model of it."""

from urllib.parse import quote, unquote_to_bytes

import orjson
from starlette.types import Receive, Scope, Send

from llmproxy.proxy.relay import Relay
from llmproxy.proxy.rooms import Rooms
from llmproxy.wire.exchange import EXCHANGE, Exchange

_PREFIX = b"/v1/models/"


class Models:
    """Answers GET and HEAD; whatever else is asked of these paths is passed through."""

    def __init__(self) -> None:
        self._relay = Relay()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["method"] not in ("GET", "HEAD"):
            await self._relay(scope, receive, send)
            return
        rooms: Rooms = scope["state"]["rooms"]
        exchange: Exchange = scope[EXCHANGE]
        exchange.endpoint = "models"
        # the raw path: an id may hold a slash, percent-encoded by newer SDKs and raw by older ones
        path: bytes = scope.get("raw_path") or scope["path"].encode()
        name = unquote_to_bytes(path[len(_PREFIX) :]).decode("utf-8", "replace") if path.startswith(_PREFIX) else ""
        document = await rooms.upstreams.model(name) if name else await rooms.upstreams.models()
        body = orjson.dumps(document)
        headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body))]
        if not name:
            # what is taken for a request without a model: the list may begin with one that only makes embeddings
            headers.append((b"x-llmproxy-default-model", quote(rooms.upstreams.first_model).encode()))
        exchange.status = 200
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": b"" if scope["method"] == "HEAD" else body})
