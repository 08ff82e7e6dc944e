"""An upstream's error response, whatever its shape, as one with OpenAI's envelope. Pure.

Seen in the wild: llama.cpp's integer ``code`` without ``param``, Ollama's ``{"error": "text"}``, FastAPI's
``{"detail": ...}``, flat ``{"message", "code"}``, arrays, plain text, HTML and empty bodies.
"""

import re
from collections.abc import Iterable
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from typing import Any

import orjson

from llmproxy.wire.errors import UpstreamStatus, envelope
from llmproxy.wire.markup import text_of

#: One SDK sleeps for as long as it is told, another gives up above its own bound.
_LONGEST_RETRY_SECONDS = 30.0
_LOADING_RETRY_SECONDS = b"2"
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
_PASSED = frozenset({b"x-request-id", b"x-should-retry"})
_PASSED_PREFIXES = (b"openai-", b"x-ratelimit-")

#: A 500 that says so will say so again.
_DETERMINISTIC = re.compile(r"not supported|unsupported|not enabled|does not support|not implemented", re.IGNORECASE)


def normalise(status: int, headers: Iterable[tuple[bytes, bytes]], body: bytes) -> UpstreamStatus:
    """The error to answer with: the upstream's status, message and further members, and its retry headers.

    ``headers`` have lower-case names. ``body`` may be cut off.
    """
    error = _error(status, body)
    return UpstreamStatus(status, {"error": error}, tuple(_retry(status, error["message"], list(headers))))


def _error(status: int, body: bytes) -> dict[str, Any]:
    try:
        found = orjson.loads(body)
    except orjson.JSONDecodeError:
        found = _readable(body)
    message, members = _told(found)
    kind, param = members.get("type"), members.get("param")
    error: dict[str, Any] = envelope(
        message[:_LONGEST_MESSAGE] or _default_message(status),
        kind if isinstance(kind, str) and kind else _default_type(status),
        _code(status, members),
        param if isinstance(param, str) else None,
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
    if isinstance(found, dict):
        for name in ("message", "error", "detail"):
            if isinstance(found.get(name), str):
                return found[name].strip(), {key: value for key, value in found.items() if key != name}
    return found.strip() if isinstance(found, str) else "" if found is None else _json(found), {}


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
        return code or None
    return str(code) if isinstance(code, int) and not isinstance(code, bool) and code != status else None


def _default_type(status: int) -> str:
    return _TYPES.get(status, "invalid_request_error" if status < 500 else "server_error")


def _default_message(status: int) -> str:
    try:
        phrase = f"{status} {HTTPStatus(status).phrase}"
    except ValueError:
        phrase = str(status)
    return f"The model server answered {phrase} and did not say why."


def _retry(status: int, message: str, headers: list[tuple[bytes, bytes]]) -> Iterable[tuple[bytes, bytes]]:
    date = next((value for name, value in headers if name == b"date"), b"")
    names = set()
    for name, value in headers:
        if name == b"retry-after":
            value = _seconds(value, date)
        elif name == b"retry-after-ms":
            value = _bounded(value, 1000 * _LONGEST_RETRY_SECONDS)
        elif name not in _PASSED and not name.startswith(_PASSED_PREFIXES):
            continue
        if value:
            names.add(name)
            yield name, value
    if status == HTTPStatus.SERVICE_UNAVAILABLE and not names & {b"retry-after", b"retry-after-ms"}:
        yield b"retry-after", _LOADING_RETRY_SECONDS
    deterministic = status == HTTPStatus.NOT_IMPLEMENTED or (status == 500 and _DETERMINISTIC.search(message))
    if deterministic and b"x-should-retry" not in names:
        yield b"x-should-retry", b"false"


def _seconds(value: bytes, date: bytes) -> bytes:
    """Both forms of ``Retry-After`` (RFC 9110 section 10.2.3) as bounded seconds; b"" for what is neither."""
    seconds = _bounded(value, _LONGEST_RETRY_SECONDS)
    if seconds:
        return seconds
    try:
        delay = parsedate_to_datetime(value.decode("latin-1")) - parsedate_to_datetime(date.decode("latin-1"))
    except (TypeError, ValueError, OverflowError):
        return b""
    return b"%d" % min(max(0, delay.total_seconds()), _LONGEST_RETRY_SECONDS)


def _bounded(value: bytes, most: float) -> bytes:
    """A number, at most ``most``; b"" for what is none."""
    if not re.fullmatch(rb"[0-9]{1,12}(\.[0-9]{1,6})?", value):
        return b""
    return value if float(value) <= most else b"%d" % most
