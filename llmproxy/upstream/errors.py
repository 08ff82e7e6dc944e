"""An upstream's error response, whatever its shape: as it came, and read into OpenAI's envelope. Pure.

Seen in the wild: llama.cpp's integer ``code`` without ``param``, Ollama's ``{"error": "text"}``, FastAPI's
``{"detail": ...}``, flat ``{"message", "code"}``, arrays, plain text, HTML and empty bodies.
"""

import json
import re
from collections.abc import Iterable, Iterator
from http import HTTPStatus
from typing import Any

import orjson

from llmproxy.upstream.headers import answer_headers
from llmproxy.wire.errors import UpstreamStatus, envelope
from llmproxy.wire.headers import content_type, retry_after

_LOADING_RETRY_SECONDS = 2
_LONGEST_MESSAGE = 2000
#: bytes of a body that is no JSON in which a message is looked for
_MOST_READABLE = 64 * 1024
#: ``{"error": {"error": ...}}`` and lists around it
_DEEPEST_WRAPPING = 4

_TYPES = {
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    429: "rate_limit_error",
}

#: A 500 that says so will say so again.
_DETERMINISTIC = re.compile(r"not supported|unsupported|not enabled|does not support|not implemented", re.IGNORECASE)


def normalise(status: int, headers: Iterable[tuple[bytes, bytes]], body: bytes) -> UpstreamStatus:
    """The error to answer with: the upstream's status, body and headers, and what it says in OpenAI's envelope.

    ``headers`` have lower-case names. ``body`` may be cut off.
    """
    headers = list(headers)
    if any(name == b"content-encoding" for name, _ in headers):
        # one that is not known here
        body = b""
    found = _parsed(body)
    error = _error(status, found)
    # what stands beside the error of another form stays where its readers look for it
    beside = {name: value for name, value in found.items() if name != "error"} if isinstance(found, dict) else {}
    return UpstreamStatus(
        status,
        {"error": error} | (beside if _json(beside) else {}),
        tuple(_passed(status, error["message"], headers)),
        decoded=found,
        original=body,
        content_type=_json_type(headers),
    )


def _parsed(body: bytes) -> Any:
    """The JSON value, leniently read; the text of what is no JSON."""
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError:
        pass
    try:
        return json.loads(body, strict=False)
    except (ValueError, RecursionError):
        return _readable(body)


def _json_type(headers: Iterable[tuple[bytes, bytes]]) -> bytes:
    """The upstream's own content type where it is one of JSON."""
    given = content_type(headers)
    return given if b"json" in given.lower() else b"application/json"


def _error(status: int, found: Any) -> dict[str, Any]:
    message, members = _told(found)
    kind, param = members.get("type"), members.get("param")
    error: dict[str, Any] = envelope(
        _valid(message[:_LONGEST_MESSAGE]) or _default_message(status),
        _valid(kind) if isinstance(kind, str) and kind else _default_type(status),
        _code(status, members),
        _valid(param) if isinstance(param, str) else None,
    )["error"]
    further = {name: value for name, value in members.items() if name not in error}
    return error | further if _json(further) else error


def _told(found: Any) -> tuple[str, dict[str, Any]]:
    """The text of an error document, and the members beside it."""
    for _ in range(_DEEPEST_WRAPPING):
        if isinstance(found, list) and len(found) == 1:
            found = found[0]
        elif isinstance(found, dict) and isinstance(inner := found.get("error") or found.get("detail"), dict | list):
            found = inner
        else:
            break
    if complaints := _complaints(found if isinstance(found, list) else [found]):
        return "; ".join(complaints), {}
    if isinstance(found, dict):
        for name in ("message", "error", "detail"):
            if isinstance(found.get(name), str):
                return found[name].strip(), {key: value for key, value in found.items() if key != name}
    return found.strip() if isinstance(found, str) else "" if found is None else _json(found), {}


def _complaints(found: list[Any]) -> list[str]:
    """What FastAPI says of a request that it cannot validate: a place and a message each."""
    return [
        f"{'.'.join(map(str, each['loc']))}: {each['msg']}"
        for each in found
        if isinstance(each, dict) and isinstance(each.get("msg"), str) and isinstance(each.get("loc"), list)
    ]


def _valid(text: str) -> str:
    """``text`` without half surrogates, which cannot be written."""
    return text.encode("utf-8", "replace").decode()


def _json(value: Any) -> str:
    """ "" for what is nested too deeply to be written."""
    try:
        return orjson.dumps(value).decode()
    except orjson.JSONEncodeError:
        return ""


def _readable(body: bytes) -> str:
    """What a person can read of a body that is no JSON."""
    body = body[:_MOST_READABLE].strip()
    return text_of(body) if body.startswith(b"<") else body.decode("utf-8", "replace")


def _code(status: int, members: dict[str, Any]) -> str | None:
    """A string or null, as SDKs want it; a number that only repeats the status says nothing."""
    if members.get("type") == "exceed_context_size_error":
        return "context_length_exceeded"
    code = members.get("code")
    if isinstance(code, str):
        return _valid(code) or None
    return str(code) if isinstance(code, int) and not isinstance(code, bool) and code != status else None


def _default_type(status: int) -> str:
    return _TYPES.get(status, "invalid_request_error" if status < 500 else "server_error")


def _default_message(status: int) -> str:
    try:
        phrase = f"{status} {HTTPStatus(status).phrase}"
    except ValueError:
        phrase = str(status)
    return f"The model server answered {phrase} and did not say why."


def _passed(status: int, message: str, headers: list[tuple[bytes, bytes]]) -> Iterable[tuple[bytes, bytes]]:
    """The upstream's headers but its cookies, which are for one caller, and what it should have said of retries."""
    names = set()
    for name, value in answer_headers(headers):
        if name != b"set-cookie":
            names.add(name)
            yield name, value
    if status == HTTPStatus.SERVICE_UNAVAILABLE and not names & {b"retry-after", b"retry-after-ms"}:
        yield retry_after(_LOADING_RETRY_SECONDS)
    deterministic = status == HTTPStatus.NOT_IMPLEMENTED or (status == 500 and _DETERMINISTIC.search(message))
    if deterministic and b"x-should-retry" not in names:
        yield b"x-should-retry", b"false"


#: elements whose content is not text, with what ends them; comments are written like one
_OPAQUE = ((b"<!--", b"-->"), (b"<script", b"</script"), (b"<style", b"</style"))


def text_of(markup: bytes) -> str:
    """The words of the title, or of the whole page where there is none."""
    # bytes.lower keeps every offset, which str.lower does not
    lower = markup.lower()
    title = _title(markup, lower)
    words = title.split() or b" ".join(_texts(markup, lower)).split()
    return b" ".join(words).decode("utf-8", "replace")


def _title(markup: bytes, lower: bytes) -> bytes:
    start = lower.find(b"<title")
    start = lower.find(b">", start) + 1 if start >= 0 else 0
    end = lower.find(b"</title", start) if start else -1
    return markup[start:end] if end >= 0 else b""


def _texts(markup: bytes, lower: bytes) -> Iterator[bytes]:
    """What stands between tags. Each search begins where the last one ended, and one that finds nothing is the last."""
    at = 0
    while (start := markup.find(b"<", at)) >= 0:
        yield markup[at:start]
        closing = next((end for begin, end in _OPAQUE if lower.startswith(begin, start)), None)
        inner = start if closing is None else lower.find(closing, start)
        end = markup.find(b">", inner) if inner >= 0 else -1
        if end < 0:
            if closing is None:
                # no tag after all
                yield markup[start:]
            return
        at = end + 1
    yield markup[at:]
