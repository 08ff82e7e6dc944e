"""A Response as it stands, and the conversation before a request."""

import re
from typing import Any

import orjson

from llmproxy.jobs.model import JobStatus
from llmproxy.jobs.stored import StoredAnswers
from llmproxy.jobs.stored_model import AnswerKind, StoredAnswer
from llmproxy.wire.documents import Document
from llmproxy.wire.errors import BadRequest
from llmproxy.wire.formats.responses_request import history, unfinished

_PARAM = "previous_response_id"
_ID = re.compile("resp_[0-9A-Za-z_-]{1,100}")
_ENDED = ("completed", "incomplete")


def is_id(text: str) -> bool:
    """Whether a Response could have this id; other texts from callers never reach the database."""
    return _ID.fullmatch(text) is not None


async def conversation_before(answers: StoredAnswers, previous_id: str, scope: str) -> list[Document]:
    """The items of the conversation that ends with this Response.

    Raises ``BadRequest`` if it, or one before it, is missing or has no answer; ``Unavailable``.
    """
    if not is_id(previous_id):
        raise _unknown(previous_id)
    chain, missing = await answers.chain(previous_id, AnswerKind.RESPONSE, scope)
    if missing:
        raise _unknown(missing)
    return history([(orjson.loads(answer.input), _output(answer)) for answer in reversed(chain)])


def _output(answer: StoredAnswer) -> list[Document]:
    document = response_object(answer)
    if document.get("status") not in _ENDED:
        raise BadRequest(
            f"Previous response with id '{answer.id}' is {document.get('status')}: only one that is completed, or "
            "incomplete, can be disconnected on with.",
            code="previous_response_not_completed",
            param=_PARAM,
        )
    output: list[Document] = document["output"]
    return output


def _unknown(id: str) -> BadRequest:
    return BadRequest(
        f"Previous response with id '{id[:100]}' not found.", code="previous_response_not_found", param=_PARAM
    )


_STATUS = {
    JobStatus.PENDING: "queued",
    JobStatus.RUNNING: "in_progress",
    JobStatus.FINALIZING: "in_progress",
    JobStatus.CANCELLING: "in_progress",
    JobStatus.CANCELLED: "cancelled",
}

#: how a job stands that has ended by itself; None: it was deleted since, or there never was one
_OF_ITSELF = (None, JobStatus.COMPLETED, JobStatus.FAILED)


def response_object(answer: StoredAnswer) -> dict[str, Any]:
    """The Response object."""
    # one whose job was begun anew, or ended from outside after that, has the document of an earlier run
    if answer.document is not None and answer.job in _OF_ITSELF:
        document: dict[str, Any] = orjson.loads(answer.document)
        return document
    # what became of a job that left no document: it was cancelled, or ended from outside
    status = _STATUS.get(answer.job, "failed") if answer.job is not None else "failed"
    error = {"code": "server_error", "message": "The response was given up."} if status == "failed" else None
    return unfinished(answer.id, answer.created_at, status, orjson.loads(answer.request), error)
