"""What the body of ``POST /v1/batches`` asks for. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from llmproxy.jobs.batches import words
from llmproxy.jobs.batches.lines import ENDPOINTS
from llmproxy.wire.errors import BadRequest

#: the only completion window there is
WINDOW = "24h"
WINDOW_SECONDS = 86_400

_LONGEST_ID = 200
_MOST_PAIRS = 16
_LONGEST_KEY = 64
_LONGEST_VALUE = 512
#: how long the output files may be kept: an hour to thirty days
_LEAST_SECONDS = 3_600
_MOST_SECONDS = 2_592_000


@dataclass(frozen=True, slots=True)
class AskedBatch:
    """``output_seconds`` is how long the output files are kept, None where that was not said."""

    input_file_id: str
    endpoint: str
    metadata: Mapping[str, str] | None
    output_seconds: int | None


def asked_batch(body: Mapping[str, Any]) -> AskedBatch:
    """Raises ``BadRequest`` in OpenAI's words. Members that are not known are passed over."""
    input_file_id = _text(body, "input_file_id")
    if len(input_file_id) > _LONGEST_ID:
        raise words.too_long("input_file_id", _LONGEST_ID, len(input_file_id))
    endpoint = _text(body, "endpoint")
    if endpoint not in ENDPOINTS:
        raise words.not_allowed("endpoint", endpoint, list(ENDPOINTS))
    window = _text(body, "completion_window")
    if window != WINDOW:
        raise words.not_allowed("completion_window", window, [WINDOW])
    return AskedBatch(input_file_id, endpoint, _metadata(body), _output_seconds(body))


def _text(holder: Mapping[str, Any], name: str) -> str:
    value = holder.get(name)
    if value is None:
        raise words.missing(name)
    if not isinstance(value, str):
        raise words.wrong_type(name, "a string", value)
    return value


def _object(body: Mapping[str, Any], name: str) -> dict[str, Any] | None:
    value = body.get(name)
    if value is not None and not isinstance(value, dict):
        raise words.wrong_type(name, "an object", value)
    return value


def _metadata(body: Mapping[str, Any]) -> dict[str, str] | None:
    metadata = _object(body, "metadata")
    if metadata is None:
        return None
    if len(metadata) > _MOST_PAIRS:
        message = f"Invalid 'metadata': too many properties. Expected at most {_MOST_PAIRS}, got {len(metadata)}."
        raise BadRequest(message, code="object_above_max_properties", param="metadata")
    for key, value in metadata.items():
        if len(key) > _LONGEST_KEY:
            message = f"Invalid 'metadata': a key takes at most {_LONGEST_KEY} characters, got {len(key)}."
            raise BadRequest(message, code="string_above_max_length", param="metadata")
        name = f"metadata.{key}"
        if not isinstance(value, str):
            raise words.wrong_type(name, "a string", value)
        if len(value) > _LONGEST_VALUE:
            raise words.too_long(name, _LONGEST_VALUE, len(value))
    return metadata


def _output_seconds(body: Mapping[str, Any]) -> int | None:
    wanted = _object(body, "output_expires_after")
    if wanted is None:
        return None
    prefix = "output_expires_after"
    anchor = wanted.get("anchor")
    if anchor is None:
        raise words.missing(f"{prefix}.anchor")
    if anchor != "created_at":
        raise words.not_allowed(f"{prefix}.anchor", str(anchor), ["created_at"])
    seconds = wanted.get("seconds")
    if seconds is None:
        raise words.missing(f"{prefix}.seconds")
    if not isinstance(seconds, int) or isinstance(seconds, bool):
        raise words.wrong_type(f"{prefix}.seconds", "an integer", seconds)
    if not _LEAST_SECONDS <= seconds <= _MOST_SECONDS:
        raise words.out_of_range(f"{prefix}.seconds", _LEAST_SECONDS, _MOST_SECONDS, seconds)
    return seconds
