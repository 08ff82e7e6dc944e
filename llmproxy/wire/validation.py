"""Values from callers, read strictly; errors in OpenAI's words. Pure.

Readers of a query take the name of a parameter and its default. All raise ``BadRequest``.
"""

import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from llmproxy.wire.errors import BadRequest

Query = Mapping[str, str]

#: digits that a number in a query has at most: enough for every number that is read here
_DIGITS = re.compile("[0-9]{1,10}")
_UNIX_SECONDS = re.compile(r"-?[0-9]{1,12}(\.[0-9]{1,9})?")
#: in a URL an unescaped + is a space
_ZONE_BEHIND_A_SPACE = re.compile(r" (\d\d:?\d\d)$")
_IDEMPOTENCY_KEY = re.compile(rb"[!-~]{1,255}")

_LONGEST_QUOTED = 200

#: by type; ``_kind`` knows the rest
_KINDS = {
    str: "a string",
    bool: "a boolean",
    int: "an integer",
    float: "a decimal",
    list: "an array",
    dict: "an object",
}


def missing(name: str) -> BadRequest:
    return BadRequest(f"Missing required parameter: '{name}'.", code="missing_required_parameter", param=name)


def wrong_type(name: str, expected: str, value: Any) -> BadRequest:
    """``expected`` is a kind with its article, like "a string"."""
    message = f"Invalid type for '{name}': expected {expected}, but got {_kind(value)} instead."
    return BadRequest(message, code="invalid_type", param=name)


def not_allowed(name: str, value: str, allowed: Sequence[str]) -> BadRequest:
    """A value outside of ``allowed``."""
    *others, last = (f"'{each}'" for each in allowed)
    choices_text = f"{', '.join(others)}{',' if len(others) > 1 else ''} and {last}" if others else last
    message = f"Invalid value: '{value[:_LONGEST_QUOTED]}'. Supported values are: {choices_text}."
    return BadRequest(message, code="invalid_value", param=name)


def too_long(name: str, most: int, length: int) -> BadRequest:
    """A text of ``length`` characters."""
    message = (
        f"Invalid '{name}': string too long. Expected a string with maximum length {most}, "
        f"but got a string with length {length} instead."
    )
    return BadRequest(message, code="string_above_max_length", param=name)


def out_of_range(name: str, least: int, most: int, value: int) -> BadRequest:
    message = f"Invalid '{name}': expected a value from {least} to {most}, but got {value} instead."
    return BadRequest(message, code="integer_out_of_range", param=name)


def _kind(value: Any) -> str:
    if value is None:
        return "null"
    # a number in its lexical form has another type
    return _KINDS.get(type(value), "a number")


def query_number(query: Query, name: str, default: int, least: int, most: int | None = None) -> int:
    """A whole number from ``least`` to ``most``; ``default`` may be outside of both."""
    text = query.get(name)
    if text is None:
        return default
    if not _DIGITS.fullmatch(text) or int(text) < least or (most is not None and int(text) > most):
        allowed = f"from {least} to {most}" if most is not None else f"of at least {least}"
        raise BadRequest(f"'{name}' must be a number {allowed}.", code="invalid_value", param=name)
    return int(text)


def query_limit(query: Query, default: int = 20, most: int = 100) -> int:
    """``limit``: how many a page holds at most."""
    return query_number(query, "limit", default, 1, most)


def query_newest_first(query: Query, default: str) -> bool:
    """Whether ``order`` is "desc"; ``default`` is "asc" or "desc"."""
    return (query_choice(query, "order", ("asc", "desc")) or default) == "desc"


def query_choice(query: Query, name: str, choices: Collection[str]) -> str | None:
    """One of ``choices``, None if the parameter is absent."""
    text = query.get(name)
    if text is not None and text not in choices:
        raise BadRequest(f"'{name}' must be one of {', '.join(choices)}.", code="invalid_value", param=name)
    return text


def query_flag(query: Query, name: str) -> bool:
    """True or false in any case, 1 or 0; false if it is absent."""
    text = query.get(name, "false").lower()
    if text not in ("true", "false", "1", "0"):
        raise BadRequest(f"'{name}' must be true or false.", code="invalid_value", param=name)
    return text in ("true", "1")


def query_time(query: Query, name: str) -> float | None:
    """Unix seconds, from a number of them or from a date or time of ISO 8601, UTC if it names no zone."""
    text = query.get(name)
    if text is None:
        return None
    if _UNIX_SECONDS.fullmatch(text):
        return float(text)
    try:
        when = datetime.fromisoformat(_ZONE_BEHIND_A_SPACE.sub(r"+\1", text))
        return (when if when.tzinfo else when.replace(tzinfo=UTC)).timestamp()
    except (ValueError, OverflowError) as error:
        message = f"'{name}' must be Unix seconds, or a time like 2026-01-31T12:00:00Z."
        raise BadRequest(message, code="invalid_value", param=name) from error


def idempotency_key(headers: Iterable[tuple[bytes, bytes]]) -> str | None:
    """``Idempotency-Key``: the caller's name of a request that is done once if it is sent twice. None if it is absent.

    ``headers`` have lower-case names. Raises ``BadRequest``.
    """
    key = next((value for name, value in headers if name == b"idempotency-key"), None)
    if key is None:
        return None
    if not _IDEMPOTENCY_KEY.fullmatch(key):
        raise BadRequest("Idempotency-Key takes 1 to 255 visible ASCII characters.", param="Idempotency-Key")
    return key.decode()
