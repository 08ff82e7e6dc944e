"""JSON objects of answers and stream events: read, written, and searched for errors and token counts."""

import json
from typing import Any

import orjson

from llmproxy.wire.exchange import Usage

Document = dict[str, Any]


class Malformed(ValueError):
    """Frames or a document that do not have the shape of their endpoint."""


#: no answer has more tokens; a larger count is a mistake
_MOST_TOKENS = 2**31 - 1
#: larger data are not checked for JSON that is not strict
_LONGEST_LENIENT = 1024 * 1024


def parse(data: bytes) -> Document:
    """The JSON object in ``data``. Raises ``Malformed`` for anything else."""
    try:
        value = orjson.loads(data)
    except orjson.JSONDecodeError as error:
        raise Malformed(f"not JSON: {error}") from error
    if not isinstance(value, dict):
        raise Malformed("a JSON object was expected")
    return value


def peek(data: bytes) -> Document | None:
    """The JSON object in ``data``, None for anything else (``[DONE]``, a broken event)."""
    try:
        return parse(data)
    except Malformed:
        return None


def read_leniently(data: bytes) -> Document | None:
    """The object in ``data`` as many clients read it, None for anything else.

    Beyond strict JSON it accepts NaN and infinities, half surrogates, raw control characters, and bytes that are not
    UTF-8.
    """
    if (document := peek(data)) is not None:
        return document
    if len(data) > _LONGEST_LENIENT or not data.lstrip().startswith(b"{"):
        return None
    try:
        value = _loaded(data)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def is_json(data: bytes) -> bool:
    """Whether many clients find JSON in ``data``, strict or not. Data that is too large to check counts as JSON."""
    if len(data) > _LONGEST_LENIENT:
        return True
    try:
        _loaded(data)
    except ValueError:
        return False
    except RecursionError:
        return True
    return True


def _loaded(data: bytes) -> Any:
    return json.loads(data.decode("utf-8", "replace").removeprefix("\ufeff"), strict=False)


def dump(document: Any) -> bytes:
    """The JSON of a document from ``read_leniently``."""
    try:
        return orjson.dumps(document)
    except orjson.JSONEncodeError:
        return json.dumps(document).encode()


def dump_leniently(document: Any) -> bytes:
    """The JSON of a document, with NaN and infinities as they were read."""
    return json.dumps(document).encode()


def error_message(error: object) -> str:
    """The text in an ``error`` member: OpenAI's object, Ollama's plain string, or whatever JSON is there."""
    if isinstance(error, dict):
        message = error.get("message")
        if isinstance(message, str) and message:
            return message
    if isinstance(error, str):
        return error
    return dump(error).decode()


def tokens(usage: object, prompt: str, completion: str) -> Usage:
    """The token counts under the names ``prompt`` and ``completion``; None for a missing or impossible count."""
    if not isinstance(usage, dict):
        return Usage()
    counts = (usage.get(name) for name in (prompt, completion))
    return Usage(*(count if isinstance(count, int) and 0 <= count <= _MOST_TOKENS else None for count in counts))
