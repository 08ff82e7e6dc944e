"""The labels that callers put on their answers: what they may be, and the JSON they are kept as. Pure."""

from collections.abc import Mapping
from typing import Any

import orjson

from llmproxy.wire.errors import BadRequest

#: OpenAI's own bounds of ``metadata``
_MOST_PAIRS = 16
_LONGEST_NAME = 64
_LONGEST_VALUE = 512


def labels_of(metadata: Any) -> dict[str, str]:
    """A request's ``metadata``, none for null. Raises ``BadRequest`` with OpenAI's codes."""
    if metadata is None:
        return {}
    if not isinstance(metadata, dict):
        raise _refused("'metadata' must be an object.", "invalid_type")
    if len(metadata) > _MOST_PAIRS:
        message = f"'metadata' takes up to {_MOST_PAIRS} pairs, not {len(metadata)}."
        raise _refused(message, "object_above_max_properties")
    for name, value in metadata.items():
        if len(name) > _LONGEST_NAME:
            message = f"A key of 'metadata' has up to {_LONGEST_NAME} characters, not {len(name)}."
            raise _refused(message, "string_above_max_length")
        if not isinstance(value, str):
            raise _refused(f"'metadata.{name}' must be a string.", "invalid_type")
        if len(value) > _LONGEST_VALUE:
            message = f"'metadata.{name}' has up to {_LONGEST_VALUE} characters, not {len(value)}."
            raise _refused(message, "string_above_max_length")
    return metadata


def written(labels: Mapping[str, str]) -> str:
    """The JSON of labels, each of them a ``line``."""
    return "{" + ",".join(line(name, value) for name, value in labels.items()) + "\n}"


def line(name: str, value: str) -> str:
    """One label as it stands in ``written``, and nothing else there does: JSON has no line break inside a string, so
    that a text which begins with one begins where a name does. It can be looked for without reading the JSON."""
    return f"\n{orjson.dumps(name).decode()}:{orjson.dumps(value).decode()}"


def _refused(message: str, code: str) -> BadRequest:
    return BadRequest(message, code=code, param="metadata")
