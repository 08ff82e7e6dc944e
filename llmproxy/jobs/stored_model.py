"""An answer that can be asked for again: one row of ``tables.stored``, how its job stands, and its caller's labels.
Pure."""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from enum import StrEnum
from typing import Any, Self

import orjson
from sqlalchemy import RowMapping

from llmproxy.jobs.model import JobStatus
from llmproxy.wire import validation
from llmproxy.wire.errors import BadRequest

#: OpenAI's own bounds of ``metadata``
_MOST_PAIRS = 16
_LONGEST_NAME = 64
_LONGEST_VALUE = 512


def parse_metadata(metadata: Any) -> dict[str, str]:
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


def dump_labels(labels: Mapping[str, str]) -> str:
    """The JSON of labels, each of them a ``line``."""
    return "{" + ",".join(label_json(name, value) for name, value in labels.items()) + "\n}"


def label_json(name: str, value: str) -> str:
    """One label as it stands in ``written``, and nothing else there does: JSON has no line break inside a string, so
    that a text which begins with one begins where a name does. It can be looked for without reading the JSON."""
    return f"\n{orjson.dumps(name).decode()}:{orjson.dumps(value).decode()}"


class AnswerKind(StrEnum):
    RESPONSE = "response"
    CHAT = "chat"


@dataclass(frozen=True, slots=True)
class StoredAnswer:
    """``request`` is the request without ``input``, its own items or messages; both are JSON, and so is ``document``,
    the answer itself: None while it is being made. Times are Unix seconds."""

    id: str
    kind: AnswerKind
    scope: str
    model: str
    created_at: float
    request: bytes
    input: bytes
    document: bytes | None = None
    expires_at: float | None = None
    background: bool = False
    #: whether the request asked for a stream
    stream: bool = False
    #: the Response before it in the conversation, "" for none
    previous_id: str = ""
    #: JSON: the caller's labels, in the form of ``labels.written``
    metadata: str = "{}"
    #: the status of the job that makes it in the background
    job: JobStatus | None = None

    @property
    def size(self) -> int:
        """Bytes, roughly."""
        return len(self.request) + len(self.input) + len(self.document or b"") + len(self.metadata) + 200

    def row(self) -> dict[str, Any]:
        """Its columns. The database takes no NUL in a text, and JSON writes it otherwise."""
        row = {field.name: getattr(self, field.name) for field in fields(self) if field.name != "job"}
        return row | {"model": self.model.replace("\0", "")}

    @classmethod
    def read(cls, row: RowMapping) -> Self:
        job = row["job"]
        read: dict[str, Any] = {**row, "kind": AnswerKind(row["kind"]), "job": JobStatus(job) if job else None}
        return cls(**read)
