"""The labels that callers put on their answers: what they may be, and the JSON they are kept as. Pure."""

from collections.abc import Mapping
from typing import Any

import orjson

from llmproxy.wire import validation
from llmproxy.wire.errors import BadRequest

#: OpenAI's own bounds of ``metadata``
_MOST_PAIRS = 16
_LONGEST_NAME = 64
_LONGEST_VALUE = 512


def labels_of(metadata: Any) -> dict[str, str]:
    """A request's ``metadata``, none for null. Raises ``BadRequest`` in OpenAI's words."""
    if metadata is None:
        return {}
    if not isinstance(metadata, dict):
        raise validation.wrong_type("metadata", "an object", metadata)
    if len(metadata) > _MOST_PAIRS:
        message = f"Invalid 'metadata': too many properties. Expected at most {_MOST_PAIRS}, got {len(metadata)}."
        raise BadRequest(message, code="object_above_max_properties", param="metadata")
    for name, value in metadata.items():
        if len(name) > _LONGEST_NAME:
            message = f"Invalid 'metadata': a key takes at most {_LONGEST_NAME} characters, got {len(name)}."
            raise BadRequest(message, code="string_above_max_length", param="metadata")
        if not isinstance(value, str):
            raise validation.wrong_type(f"metadata.{name}", "a string", value)
        if len(value) > _LONGEST_VALUE:
            raise validation.too_long(f"metadata.{name}", _LONGEST_VALUE, len(value))
    return metadata


def written(labels: Mapping[str, str]) -> str:
    """The JSON of labels, each of them a ``line``."""
    return "{" + ",".join(line(name, value) for name, value in labels.items()) + "\n}"


def line(name: str, value: str) -> str:
    """One label as it stands in ``written``, and nothing else there does: JSON has no line break inside a string, so
    that a text which begins with one begins where a name does. It can be looked for without reading the JSON."""
    return f"\n{orjson.dumps(name).decode()}:{orjson.dumps(value).decode()}"
