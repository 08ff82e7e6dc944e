"""Where a page ended, as a text that callers give back without looking into it. Pure."""

from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Sequence
from typing import Any

import orjson

from llmproxy.wire.errors import BadRequest

#: what every database takes for a number
_LARGEST = 2**63 - 1


def cursor(values: Sequence[object]) -> str:
    """The text that stands for numbers and texts."""
    return urlsafe_b64encode(orjson.dumps(list(values))).decode().rstrip("=")


def values(text: str, kinds: Sequence[type]) -> list[object]:
    """What ``cursor`` made the text of. Raises ``BadRequest`` for any other text, or another list than of ``kinds``."""
    try:
        found = orjson.loads(urlsafe_b64decode(text.encode() + b"=" * (-len(text) % 4)))
    except ValueError:
        found = None
    if not isinstance(found, list) or [type(value) for value in found] != list(kinds) or not all(map(_kept, found)):
        raise BadRequest("'cursor' must be what an earlier page gave as 'next'.", param="cursor")
    return found


def _kept(value: Any) -> bool:
    """Whether a row may hold it: no database takes other numbers, nor PostgreSQL a text with a NUL."""
    return "\0" not in value if isinstance(value, str) else -_LARGEST <= value <= _LARGEST
