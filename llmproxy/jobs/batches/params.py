"""What the body of ``POST /v1/batches`` asks for. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from llmproxy.jobs.answers.labels import labels_of
from llmproxy.jobs.batches.lines import ENDPOINTS
from llmproxy.wire import validation

#: the only completion window there is
WINDOW = "24h"
WINDOW_SECONDS = 86_400

_LONGEST_ID = 200
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
        raise validation.too_long("input_file_id", _LONGEST_ID, len(input_file_id))
    endpoint = _text(body, "endpoint")
    if endpoint not in ENDPOINTS:
        raise validation.not_allowed("endpoint", endpoint, list(ENDPOINTS))
    window = _text(body, "completion_window")
    if window != WINDOW:
        raise validation.not_allowed("completion_window", window, [WINDOW])
    # what has no labels keeps saying so
    labels = None if body.get("metadata") is None else labels_of(body["metadata"])
    return AskedBatch(input_file_id, endpoint, labels, _output_seconds(body))


def _text(holder: Mapping[str, Any], name: str) -> str:
    value = holder.get(name)
    if value is None:
        raise validation.missing(name)
    if not isinstance(value, str):
        raise validation.wrong_type(name, "a string", value)
    return value


def _output_seconds(body: Mapping[str, Any]) -> int | None:
    prefix = "output_expires_after"
    wanted = body.get(prefix)
    if wanted is None:
        return None
    if not isinstance(wanted, dict):
        raise validation.wrong_type(prefix, "an object", wanted)
    anchor = wanted.get("anchor")
    if anchor is None:
        raise validation.missing(f"{prefix}.anchor")
    if anchor != "created_at":
        raise validation.not_allowed(f"{prefix}.anchor", str(anchor), ["created_at"])
    seconds = wanted.get("seconds")
    if seconds is None:
        raise validation.missing(f"{prefix}.seconds")
    if not isinstance(seconds, int) or isinstance(seconds, bool):
        raise validation.wrong_type(f"{prefix}.seconds", "an integer", seconds)
    if not _LEAST_SECONDS <= seconds <= _MOST_SECONDS:
        raise validation.out_of_range(f"{prefix}.seconds", _LEAST_SECONDS, _MOST_SECONDS, seconds)
    return seconds
