"""A request body as the key sees it: parsed strictly, written canonically."""

import json
import re
from collections.abc import Container
from typing import Any

import orjson

from llmproxy.wire.errors import UnreadableBody

#: Numbers that a float or a 64-bit integer cannot tell apart: kept in their lexical form when one may be present.
_DELICATE_NUMBER = re.compile(rb"[0-9][eE][+-]?[0-9]|[0-9.]{16,}")

BOM = b"\xef\xbb\xbf"


def parse(body: bytes) -> dict[str, Any]:
    """The JSON object in ``body`` (RFC 8259; a byte-order mark is forgiven, of duplicate names the last one counts).

    Nested numbers that would lose their lexical form are ``orjson.Fragment``. Raises ``UnreadableBody`` for what is not
    UTF-8, not JSON (NaN and lone surrogates included), nested too deeply, or not an object.
    """
    body = body.removeprefix(BOM)
    if not body.strip():
        raise UnreadableBody("The request body is empty; a JSON object is needed.")
    try:
        value = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise UnreadableBody(f"The request body is not valid JSON: {error}") from error
    if not isinstance(value, dict):
        raise UnreadableBody(f"The request body must be a JSON object, not {_kind(value)}.")
    if _DELICATE_NUMBER.search(body):
        value = _lexical(body)
    return {name: _plain(member) for name, member in value.items()}


def canonical(body: dict[str, Any], excused: Container[str]) -> bytes:
    """The body's keyed fields, top-level names sorted, everything nested in the order received.

    Raises ``UnreadableBody`` for what is nested deeper than can be written again (some 250 levels).
    """
    kept = {name: body[name] for name in sorted(body) if name not in excused}
    try:
        # two levels are left free: an event repeats a member one level deeper, a batch's output two
        return orjson.dumps([[kept]])[2:-2]
    except orjson.JSONEncodeError as error:
        raise UnreadableBody("The request body is nested too deeply.") from error


def _lexical(body: bytes) -> dict[str, Any]:
    texts: dict[int, str] = {}

    def keep(text: str) -> Any:
        fragment = orjson.Fragment(text)
        texts[id(fragment)] = text
        return fragment

    def keep_large(text: str) -> Any:
        return int(text) if len(text) < 19 else keep(text)

    # orjson has accepted these bytes already: what is left to go wrong here is only depth
    try:
        value: dict[str, Any] = json.loads(body, parse_float=keep, parse_int=keep_large)
    except RecursionError as error:
        raise UnreadableBody("The request body is nested too deeply.") from error
    for name, member in value.items():
        text = texts.get(id(member))
        # an integer beyond 64 bits keeps its digits even here: as a float it would equal its neighbours
        if text is not None and not text.lstrip("-").isdigit():
            value[name] = float(text)
    return value


def _plain(member: Any) -> Any:
    """Top-level numbers are compared by value: ``1``, ``1.0`` and ``1e0`` are one (Node prints 1.0 as 1)."""
    if isinstance(member, float) and member.is_integer() and abs(member) < 2**53:
        return int(member)
    return member


def _kind(value: Any) -> str:
    if isinstance(value, list):
        return "an array"
    if value is None:
        return "null"
    return {str: "a string", bool: "a boolean"}.get(type(value), "a number")
