"""A request body as the key sees it: parsed strictly, written canonically. Linear in the body's length."""

import json
import re
from collections.abc import Container
from typing import Any

import orjson

from llmproxy.wire.errors import UnreadableBody

BOM = b"\xef\xbb\xbf"

#: Numbers that a float or a 64-bit integer cannot tell apart keep their lexical form if one may be present:
#: those with an exponent, and those with many digits. In the text that ``_CLASSES`` makes of a body, a digit or a point
#: is 0, a sign is +, a blank or a mark that a number may follow is a blank, and all else is x.
_KINDS = {
    **dict.fromkeys(b"0123456789.", b"0"),
    **dict.fromkeys(b"eE", b"e"),
    **dict.fromkeys(b"+-", b"+"),
    **dict.fromkeys(b" \t\r\n[,:", b" "),
}
_CLASSES = b"".join(_KINDS.get(code, b"x") for code in range(256))
_DELICATE = (b"0e0", b"0e+0", b"0" * 16)
#: from here on an integer may not fit into 64 bits
_LARGE_DIGITS = b"0" * 19
#: a body is searched in pieces, so that other threads get their turn; pieces overlap by the longest pattern
_PIECE = 1024 * 1024
_OVERLAP = len(_LARGE_DIGITS)
#: so many places are looked at more closely before a body counts as one with such numbers
_MOST_LOOKS = 16

#: What a body may cost to be made into objects, all at once: a member counts 4, an array or object 2, a comma 1. Ten
#: million numbers are allowed, or two million members; half a second.
_MOST_WORK = 10_000_000
#: the inside of a string, as far as it is looked at in one piece
_INSIDE = re.compile(rb'(?:[^"\\]++|\\.){0,50000}+', re.DOTALL)


def parse(body: bytes) -> dict[str, Any]:
    """The JSON object in ``body`` (RFC 8259; a byte-order mark is ignored, of duplicate names the last one counts).

    Nested numbers that would lose their lexical form are ``orjson.Fragment``. Raises ``UnreadableBody`` for a body that
    is not UTF-8, not JSON (NaN and lone surrogates included), nested too deeply, not an object, or of more than ten
    million values.
    """
    body = body.removeprefix(BOM)
    if not body.strip():
        raise UnreadableBody("The request body is empty; a JSON object is needed.")
    if len(body) > _MOST_WORK and _work(body) > _MOST_WORK:
        raise UnreadableBody("The request body holds too many values: more than ten million, or two million members.")
    try:
        document = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise UnreadableBody(f"The request body is not valid JSON: {error}") from error
    if not isinstance(document, dict):
        raise UnreadableBody(f"The request body must be a JSON object, not {_kind(document)}.")
    delicate, large = _numbers(body)
    value: dict[str, Any] = _lexical(body, large=large) if delicate else document
    # rarely any, of what may be a million
    value.update({name: _plain(member) for name, member in value.items() if isinstance(member, float)})
    return value


def canonical(body: dict[str, Any], excused: Container[str]) -> bytes:
    """The body's keyed fields, top-level names sorted, everything nested in the order received.

    Raises ``UnreadableBody`` for a body that is nested too deeply to be written again (some 250 levels).
    """
    keyed = {name: body[name] for name in sorted(body) if name not in excused}
    try:
        # two levels are left free: an event repeats a member one level deeper, a batch's output two
        return orjson.dumps([[keyed]])[2:-2]
    except orjson.JSONEncodeError as error:
        raise UnreadableBody("The request body is nested too deeply.") from error


def _numbers(body: bytes) -> tuple[bool, bool]:
    """Whether the lexical form of a number may have to be kept, and whether that number may be an integer."""
    delicate = False
    for at in range(0, len(body), _PIECE):
        classes = body[at : at + _PIECE + _OVERLAP].translate(_CLASSES)
        if _holds_number(classes, _LARGE_DIGITS):
            return True, True
        delicate = delicate or any(_holds_number(classes, form) for form in _DELICATE)
    return delicate, False


def _holds_number(classes: bytes, form: bytes) -> bool:
    """Whether what may be a number has this form. Not one in the middle of a word: identifiers are full of them."""
    at = -len(form)
    for _ in range(_MOST_LOOKS):
        at = classes.find(form, at + len(form))
        if at < 0:
            return False
        before = classes[max(0, at - _OVERLAP) : at].rstrip(b"0").removesuffix(b"+")
        if not before or before.endswith(b" "):
            return True
    return True


def _work(body: bytes) -> int:
    """The cost of the body, counted up to the limit; for JSON and for anything else."""
    work = at = 0
    while work <= _MOST_WORK:
        quote = body.find(b'"', at)
        end = len(body) if quote < 0 else quote
        brackets = body.count(b"[", at, end) + body.count(b"{", at, end)
        work += 4 * body.count(b":", at, end) + 2 * brackets + body.count(b",", at, end)
        if quote < 0:
            break
        at = quote + 1
        while (inside := _INSIDE.match(body, at)) is not None and inside.end() > at:
            at = inside.end()
        at += 1
    return work


def _lexical(body: bytes, *, large: bool) -> dict[str, Any]:
    # as functions, and not as the type itself: between them other threads get their turn
    def keep(text: str) -> Any:
        return orjson.Fragment(text)

    def keep_large(text: str) -> Any:
        return int(text) if len(text) < 19 else orjson.Fragment(text)

    # orjson has accepted these bytes already: only their depth can fail here
    try:
        value: dict[str, Any] = json.loads(body, parse_float=keep, parse_int=keep_large if large else None)
    except RecursionError as error:
        raise UnreadableBody("The request body is nested too deeply.") from error
    for name, member in value.items():
        if isinstance(member, orjson.Fragment):
            text = orjson.dumps(member)
            # an integer beyond 64 bits keeps its digits even here: as a float it would equal its neighbours
            if not text.lstrip(b"-").isdigit():
                value[name] = float(text)
    return value


def _plain(member: float) -> float | int:
    """Top-level numbers are compared by value: ``1``, ``1.0`` and ``1e0`` are one (Node prints 1.0 as 1)."""
    if member.is_integer() and abs(member) < 2**53:
        return int(member)
    return member


def _kind(value: Any) -> str:
    if isinstance(value, list):
        return "an array"
    if value is None:
        return "null"
    return {str: "a string", bool: "a boolean"}.get(type(value), "a number")
