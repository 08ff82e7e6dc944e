"""A stored chat completion as its caller sees it: the answer, what was asked beside the messages, the messages."""

from typing import Any

import orjson

from llmproxy.jobs.answers.answer import StoredAnswer
from llmproxy.wire.documents import Document, dump

#: members of the request that are shown with the answer
_ASKED = (
    "temperature",
    "top_p",
    "presence_penalty",
    "frequency_penalty",
    "seed",
    "tools",
    "tool_choice",
    "response_format",
)


def document_of(answer: StoredAnswer) -> Document:
    """The chat completion object."""
    request = orjson.loads(answer.request)
    asked = {name: request.get(name) for name in _ASKED} | {"input_user": request.get("user")}
    document: Document = orjson.loads(answer.document or b"{}")
    return asked | document | {"metadata": orjson.loads(answer.metadata)}


def messages_of(answer: StoredAnswer) -> list[Document]:
    """The request's messages. Their ids are made from the answer's and their places."""
    return [_message(message, f"{answer.id}-{place}") for place, message in enumerate(orjson.loads(answer.input))]


def _message(message: Any, id: str) -> Document:
    if not isinstance(message, dict):
        # a model server took it for something
        message = {"role": None, "content": dump(message).decode()}
    content = message.get("content")
    parts = content if isinstance(content, list) else None
    return {**message, "id": id, "content": None if parts is not None else content, "content_parts": parts}
