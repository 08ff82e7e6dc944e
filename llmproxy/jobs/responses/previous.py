"""The conversation before a request: what its ``previous_response_id`` stands for."""

import re

import orjson

from llmproxy.jobs.answers.answer import AnswerKind, StoredAnswer
from llmproxy.jobs.answers.answers import StoredAnswers
from llmproxy.jobs.responses.serialize import document_of
from llmproxy.wire.documents import Document
from llmproxy.wire.errors import BadRequest
from llmproxy.wire.formats.responses_request import history

_PARAM = "previous_response_id"
_ID = re.compile("resp_[0-9A-Za-z_-]{1,100}")
_ENDED = ("completed", "incomplete")


def is_id(text: str) -> bool:
    """Whether a Response could have this id; what comes from strangers goes no further otherwise."""
    return _ID.fullmatch(text) is not None


async def before(answers: StoredAnswers, previous_id: str, scope: str) -> list[Document]:
    """The items of the conversation that ends with this Response.

    Raises ``BadRequest`` where it, or one before it, is not there, or has no answer; ``Unavailable``.
    """
    if not is_id(previous_id):
        raise _unknown(previous_id)
    chain, missing = await answers.chain(previous_id, AnswerKind.RESPONSE, scope)
    if missing:
        raise _unknown(missing)
    return history([(orjson.loads(answer.input), _output(answer)) for answer in reversed(chain)])


def _output(answer: StoredAnswer) -> list[Document]:
    document = document_of(answer)
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
