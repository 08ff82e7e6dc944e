"""Members of a request's JSON object, read strictly by their type. Pure. What is null is absent.

Every function raises ``BadRequest`` for a member that is not what it should be.
"""

from collections.abc import Collection
from itertools import islice
from typing import Any

from llmproxy.wire.errors import BadRequest

Fields = dict[str, Any]


def only(fields: Fields, known: Collection[str]) -> None:
    """Refuses members that nobody knows: a misspelt option would be ignored in silence."""
    # a request may have a million of them
    unknown = sorted(islice((name for name in fields if name not in known), 10))
    if unknown:
        names = ", ".join(repr(name[:100]) for name in unknown)
        raise BadRequest(
            f"Unknown fields: {names}. Known are {', '.join(known)}.", code="unknown_parameter", param=unknown[0][:100]
        )


def text(fields: Fields, name: str) -> str:
    """A string that says something; it must be there."""
    if fields.get(name) is None:
        raise BadRequest(f"'{name}' is required.", code="missing_required_parameter", param=name)
    return _saying(fields[name], f"'{name}'", name)


def texts(fields: Fields, name: str) -> list[str]:
    """A list of such strings, at least one."""
    value = fields.get(name)
    if value is None:
        raise BadRequest(f"'{name}' is required.", code="missing_required_parameter", param=name)
    if not isinstance(value, list) or not value:
        raise BadRequest(f"'{name}' must be a list of at least one string.", param=name)
    for index, each in enumerate(value):
        _saying(each, f"'{name}[{index}]'", name)
    return value


def word(fields: Fields, name: str, longest: int) -> str:
    """A printable string of up to ``longest`` characters; "" where there is none."""
    value = fields.get(name)
    if value is None:
        return ""
    if not isinstance(value, str) or len(value) > longest or not value.isprintable():
        raise BadRequest(f"'{name}' must be a string of up to {longest} printable characters.", param=name)
    return value


def flag(fields: Fields, name: str) -> bool:
    """False where there is none."""
    value = fields.get(name)
    if value is not None and not isinstance(value, bool):
        raise BadRequest(f"'{name}' must be true or false.", param=name)
    return bool(value)


def whole(fields: Fields, name: str, least: int, most: int) -> int | None:
    value = fields.get(name)
    if value is None:
        return None
    if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= most:
        raise BadRequest(f"'{name}' must be a whole number from {least} to {most}.", param=name)
    return value


def number(fields: Fields, name: str, least: float, most: float) -> float | None:
    value = fields.get(name)
    if value is None:
        return None
    if not isinstance(value, int | float) or isinstance(value, bool) or not least <= value <= most:
        raise BadRequest(f"'{name}' must be a number from {least:g} to {most:g}.", param=name)
    return value


def _saying(value: object, what: str, param: str) -> str:
    if not isinstance(value, str):
        raise BadRequest(f"{what} must be a string.", param=param)
    if not value.strip():
        raise BadRequest(f"{what} must not be empty.", param=param)
    return value
