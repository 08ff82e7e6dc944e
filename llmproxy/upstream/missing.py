"""Endpoints that a server lacks: how its refusal shows that, and what it is asked instead. Pure."""

from http import HTTPStatus
from typing import Any

import orjson

from llmproxy.upstream.responses_by_chat import ChatTranslation, chat_request
from llmproxy.upstream.target import Adapted, Document
from llmproxy.wire.errors import UpstreamStatus

#: with which a server may say that it has no such path
MISSING_STATUSES = frozenset({HTTPStatus.NOT_FOUND, HTTPStatus.METHOD_NOT_ALLOWED})

_CHAT = b"/v1/chat/completions"

#: members of an error that speak of the request, not of its path
_OF_THE_REQUEST = ("code", "param")


def endpoint_missing(status: int, body: bytes) -> bool:
    """Whether an error says that the server has no such path, as against no such model, file or Response.

    Seen: 404 with plain text (Go), ``{"detail": "Not Found"}`` (FastAPI), ``File Not Found`` (llama.cpp), HTML; 405.
    """
    if status == HTTPStatus.METHOD_NOT_ALLOWED:
        return True
    if status != HTTPStatus.NOT_FOUND:
        return False
    try:
        document = orjson.loads(body)
    except orjson.JSONDecodeError:
        return b"model" not in body.lower()
    error = document.get("error", document) if isinstance(document, dict) else document
    if isinstance(error, dict) and any(isinstance(error.get(name), str) for name in _OF_THE_REQUEST):
        return False
    return "model" not in _text(error).lower()


def missing(error: UpstreamStatus, server: str, target: bytes) -> UpstreamStatus:
    """The error of a server that lacks the endpoint, such that who reads it in a job's result knows what is wrong.

    ``target`` is the raw path and query. The document stays the server's own.
    """
    path = target.partition(b"?")[0].decode("latin-1")
    error.message = f"The model server at {server} has no endpoint {path}: {error.message}"
    error.error_code = "endpoint_missing"
    return error


def _text(error: Any) -> str:
    if isinstance(error, dict):
        error = error.get("message") or error.get("detail") or ""
    return error if isinstance(error, str) else ""


def translated(endpoint: str, body: Document) -> Adapted | None:
    """What to send to a server without ``endpoint`` (a name in ``wire.endpoints``); None where nothing stands for it.

    Responses are asked for as a chat. Raises ``BadRequest`` for what a chat cannot express.
    """
    if endpoint != "responses":
        return None
    sent = orjson.dumps(chat_request(body))
    return Adapted(sent, stream=True, repair=ChatTranslation(body), path=_CHAT)
