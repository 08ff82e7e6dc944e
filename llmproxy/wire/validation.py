"""What is wrong with a value, in OpenAI's words. Pure."""

from collections.abc import Sequence
from typing import Any

from llmproxy.wire.errors import BadRequest

_LONGEST_SHOWN = 200

#: by type; None and what JSON does not know are left to ``_kind``
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


def wrong_type(name: str, wanted: str, value: Any) -> BadRequest:
    """``wanted`` is a kind with its article, like "a string"."""
    message = f"Invalid type for '{name}': expected {wanted}, but got {_kind(value)} instead."
    return BadRequest(message, code="invalid_type", param=name)


def not_allowed(name: str, value: str, allowed: Sequence[str]) -> BadRequest:
    """A value that is none of those ``allowed``."""
    *others, last = (f"'{each}'" for each in allowed)
    listed = f"{', '.join(others)}{',' if len(others) > 1 else ''} and {last}" if others else last
    message = f"Invalid value: '{value[:_LONGEST_SHOWN]}'. Supported values are: {listed}."
    return BadRequest(message, code="invalid_value", param=name)


def too_long(name: str, most: int, length: int) -> BadRequest:
    """A text of so many characters."""
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
    # a number kept in its lexical form is none of the types
    return _KINDS.get(type(value), "a number")
