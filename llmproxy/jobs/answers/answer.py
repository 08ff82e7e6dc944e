"""An answer that can be asked for again: one row of ``tables.stored``, and how its job stands."""

from dataclasses import dataclass, fields
from enum import StrEnum
from typing import Any, Self

from sqlalchemy import RowMapping

from llmproxy.jobs.states import JobStatus


class AnswerKind(StrEnum):
    RESPONSE = "response"
    CHAT = "chat"


@dataclass(frozen=True, slots=True)
class StoredAnswer:
    """``request`` is what was asked beside ``input``, the request's own items or messages; both are JSON, and so is
    ``document``, the answer itself: None while it is being made. Times are Unix seconds."""

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
    #: whether it was asked for as a stream
    stream: bool = False
    #: the Response before it in the conversation, "" for none
    previous_id: str = ""
    #: JSON: the caller's labels, in the form of ``labels.written``
    metadata: str = "{}"
    #: how the job stands that makes it in the background
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
