"""JSON answers, and parameters read strictly: what is not understood is refused, not passed over."""

import re
from collections.abc import Collection
from datetime import UTC, datetime
from typing import Any

import orjson
from starlette.requests import Request
from starlette.responses import Response

from llmproxy.wire.errors import BadRequest

_NUMBER = re.compile(r"-?[0-9]{1,12}(\.[0-9]{1,9})?")


def json_answer(document: Any) -> Response:
    return Response(orjson.dumps(document), media_type="application/json")


def given(request: Request, known: Collection[str]) -> dict[str, str]:
    """The query's parameters. Raises ``BadRequest`` for one that is unknown, or is given twice."""
    found: dict[str, str] = {}
    for name, value in request.query_params.multi_items():
        if name not in known:
            raise BadRequest(f"There is no parameter {name[:40]!r}; there are {', '.join(known)}.", param=name[:40])
        if name in found:
            raise BadRequest(f"'{name}' is given twice.", param=name)
        found[name] = value
    return found


def number(found: dict[str, str], name: str, default: int, least: int, most: int) -> int:
    """Raises ``BadRequest``."""
    text = found.get(name, str(default))
    if not re.fullmatch("[0-9]{1,9}", text) or not least <= int(text) <= most:
        raise BadRequest(f"'{name}' must be a number from {least} to {most}.", param=name)
    return int(text)


def word(found: dict[str, str], name: str, words: Collection[str]) -> str | None:
    """Raises ``BadRequest``."""
    text = found.get(name)
    if text is not None and text not in words:
        raise BadRequest(f"'{name}' must be one of {', '.join(words)}.", param=name)
    return text


def moment(found: dict[str, str], name: str) -> float | None:
    """Unix seconds from a number of them, or from a date or time of ISO 8601, UTC where it names no zone.

    Raises ``BadRequest``.
    """
    text = found.get(name)
    if text is None:
        return None
    if _NUMBER.fullmatch(text):
        return float(text)
    try:
        # in a URL an unescaped + is a space
        when = datetime.fromisoformat(re.sub(r" (\d\d:?\d\d)$", r"+\1", text))
        return (when if when.tzinfo else when.replace(tzinfo=UTC)).timestamp()
    except (ValueError, OverflowError) as error:
        raise BadRequest(f"'{name}' must be Unix seconds, or a time like 2026-01-31T12:00:00Z.", param=name) from error
