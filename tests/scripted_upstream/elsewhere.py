"""Every path that is no completion: what tells the kinds of server apart, special answers, and an echo."""

import base64
import gzip
import json
from collections.abc import Awaitable, Callable
from urllib.parse import urlsplit

from tests.scripted_upstream.journal import Visit
from tests.scripted_upstream.stage import Stage

MODEL = "scripted"
TEMPLATE = "{% for message in messages %}{{ message.content }}{% endfor %}"


def introspection(kind: str, weights: str) -> dict[str, object]:
    """GET path -> document, for a server of a kind whose model has the given weights."""
    entry: dict[str, object] = {"id": MODEL, "object": "model", "created": 1_800_000_000, "owned_by": kind}
    pages: dict[str, object] = {"/v1/models": {"object": "list", "data": [entry]}}
    if kind == "llamacpp":
        entry["meta"] = {"n_ctx": 4096, "n_params": 1, "size": 1, "n_vocab": 1}
        pages["/health"] = {"status": "ok"}
        pages["/props"] = {
            "default_generation_settings": {"params": {"temperature": 0.8}, "n_ctx": 4096},
            "total_slots": 4,
            "model_path": f"/models/{weights}.gguf",
            "chat_template": TEMPLATE,
            "build_info": "b1-scripted",
            "modalities": {"vision": False},
            "media_marker": "<__media_scripted__>",
        }
    if kind == "ollama":
        pages["/api/version"] = {"version": "0.20.0"}
        pages["/api/tags"] = {"models": [{"name": MODEL, "model": MODEL, "digest": weights, "size": 1}]}
    return pages


async def binary(stage: Stage, visit: Visit) -> None:
    """As many bytes as the path's last part says, in an order that shows a lost or doubled block."""
    size = int(urlsplit(visit.target.decode()).path.rsplit("/", 1)[1])
    await stage.head(200, [("content-type", "application/octet-stream"), ("content-length", str(size))])
    if visit.method == "HEAD":
        return
    for start in range(0, size, 64 * 1024):
        await stage.send(pattern(start, min(64 * 1024, size - start)))


def pattern(start: int, size: int) -> bytes:
    """The bytes of ``binary`` from a place on. ``start`` must be a multiple of 256."""
    block = bytes(range(256))
    return b"".join(bytes([(start // 256 + i) % 256]) + block[1:] for i in range(-(-size // 256)))[:size]


async def headers(stage: Stage, visit: Visit) -> None:
    """Response headers of every sort a proxy has an opinion about."""
    await stage.whole(
        200,
        "application/json",
        b"{}",
        [
            ("set-cookie", "a=1"),
            ("set-cookie", "b=2"),
            ("x-many", "one"),
            ("x-many", "two"),
            ("connection", "x-named"),
            ("x-named", "hop"),
            ("keep-alive", "timeout=5, max=100"),
            ("proxy-authenticate", "Basic"),
            ("access-control-allow-origin", "https://evil.example"),
            ("access-control-allow-credentials", "true"),
            ("server", "llama.cpp"),
            ("x-request-id", "upstream-id"),
            ("openai-processing-ms", "12"),
            ("x-ratelimit-remaining-requests", "99"),
        ],
    )


async def compressed(stage: Stage, visit: Visit) -> None:
    """A gzip body, whatever was asked for."""
    body = gzip.compress(b'{"compressed": true}', mtime=0)
    await stage.whole(200, "application/json", body, [("content-encoding", "gzip")])


async def not_found(stage: Stage, visit: Visit) -> None:
    """Gin's page for an unknown path."""
    await stage.whole(404, "text/plain", b"404 page not found")


PAGE = b"<html><body>Who are you?</body></html>"


async def denied(stage: Stage, visit: Visit) -> None:
    """An error page with all that belongs to it."""
    headers = [
        ("set-cookie", "a=1"),
        ("set-cookie", "b=2"),
        ("www-authenticate", 'Basic realm="models"'),
        ("retry-after", "3600"),
        ("allow", "GET"),
        ("etag", '"page"'),
        ("x-of-its-own", "1"),
    ]
    await stage.whole(403, "text/html; charset=utf-8", PAGE, headers)


async def only_compressed(stage: Stage, visit: Visit) -> None:
    """llama.cpp's page: gzip, or 415 for who does not take it."""
    if "gzip" in (visit.header("accept-encoding") or ""):
        await stage.whole(200, "text/html", gzip.compress(PAGE, mtime=0), [("content-encoding", "gzip")])
    else:
        await stage.whole(415, "text/plain", b"Error: gzip is not supported by this browser")


async def tagged(stage: Stage, visit: Visit) -> None:
    """A resource with an entity tag, in ranges."""
    if visit.header("if-none-match") == '"tag"':
        await stage.head(304, [("etag", '"tag"'), ("content-length", "10")])
    elif visit.header("range") == "bytes=2-4":
        headers = [("content-range", "bytes 2-4/10"), ("etag", '"tag"')]
        await stage.whole(206, "application/octet-stream", b"234", headers)
    else:
        await stage.whole(200, "application/octet-stream", b"0123456789", [("etag", '"tag"')])


async def nothing(stage: Stage, visit: Visit) -> None:
    await stage.head(204, [("x-of-its-own", "1")])


async def status(stage: Stage, visit: Visit) -> None:
    """The status that the path's last part says."""
    number = int(urlsplit(visit.target.decode()).path.rsplit("/", 1)[1])
    await stage.whole(number, "text/plain", b"as you wish")


async def echo(stage: Stage, visit: Visit) -> None:
    """What arrived, as JSON. ``body`` is base64 of the first bytes, ``sha256`` and ``size`` are of all of it."""
    document = {
        "method": visit.method,
        "target": visit.target.decode("latin-1"),
        "headers": [[name.decode("latin-1"), value.decode("latin-1")] for name, value in visit.headers],
        "body": base64.b64encode(visit.body[:4096]).decode(),
        "size": visit.size,
        "sha256": visit.digest.hexdigest(),
    }
    body = b"" if visit.method == "HEAD" else json.dumps(document).encode()
    await stage.whole(200, "application/json", body, [("x-echo-method", visit.method)])


Special = Callable[[Stage, Visit], Awaitable[None]]

#: the path's first two parts -> how it is answered
SPECIAL: dict[str, Special] = {
    # like llama.cpp, it has no page for one model
    "/v1/models/": not_found,
    "/play/binary": binary,
    "/play/headers": headers,
    "/play/compressed": compressed,
    "/play/denied": denied,
    "/play/not-found": not_found,
    "/play/nothing": nothing,
    "/play/only-compressed": only_compressed,
    "/play/tagged": tagged,
    "/play/status": status,
}
