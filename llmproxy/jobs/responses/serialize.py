"""A Response as it stands: the one that was made, or what its job says of one that is being made."""

from typing import Any

import orjson

from llmproxy.jobs.answers.answer import StoredAnswer
from llmproxy.jobs.states import JobStatus
from llmproxy.wire.formats.responses_request import unfinished

_WORDS = {
    JobStatus.PENDING: "queued",
    JobStatus.RUNNING: "in_progress",
    JobStatus.FINALIZING: "in_progress",
    JobStatus.CANCELLING: "in_progress",
    JobStatus.CANCELLED: "cancelled",
}

#: how a job stands that has ended by itself; None: it was deleted since, or there never was one
_OF_ITSELF = (None, JobStatus.COMPLETED, JobStatus.FAILED)


def document_of(answer: StoredAnswer) -> dict[str, Any]:
    """The Response object."""
    # one whose job was begun anew, or ended from outside after that, has the document of an earlier run
    if answer.document is not None and answer.job in _OF_ITSELF:
        document: dict[str, Any] = orjson.loads(answer.document)
        return document
    # what became of a job that left no document: it was cancelled, or ended from outside
    status = _WORDS.get(answer.job, "failed") if answer.job is not None else "failed"
    error = {"code": "server_error", "message": "The response was given up."} if status == "failed" else None
    return unfinished(answer.id, answer.created_at, status, orjson.loads(answer.request), error)
