"""Chat completions that can be asked for again: each caller sees those of their own scope."""

import re
import secrets
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, NamedTuple, Self

import orjson
from starlette.requests import HTTPConnection, Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from llmproxy.api.http import json_response, list_response
from llmproxy.api.services import JobServices, exchange_of, job_services
from llmproxy.jobs.stored import StoredAnswers, StoredQuery
from llmproxy.jobs.stored_model import AnswerKind, StoredAnswer, dump_labels, parse_metadata
from llmproxy.proxy.asgi import read
from llmproxy.proxy.endpoint import Incoming, Listening, Prepared
from llmproxy.proxy.offload import offload
from llmproxy.proxy.request import CacheableRequest
from llmproxy.wire import validation
from llmproxy.wire.documents import Document, dump, peek
from llmproxy.wire.echo import echo_of, with_echo
from llmproxy.wire.errors import BadRequest, NotFound
from llmproxy.wire.exchange import Exchange
from llmproxy.wire.json_body import canonical, parse
from llmproxy.wire.validation import query_limit, query_newest_first
from llmproxy.wire.vocabulary import Reason

PREFIX = "chatcmpl-"

#: microseconds since 1970, then chance
_ID = re.compile(PREFIX + "([0-9a-f]{14})[0-9a-f]{18}")


class ChatId(NamedTuple):
    """An id, and the time in it: when the completion was requested, Unix seconds. It is the position in a list, too.

    So a list continues behind a deleted one: a caller that deletes what it lists asks for the next page with the id of
    an answer that is gone.
    """

    time: float
    text: str

    @classmethod
    def new(cls, now: float) -> Self:
        micros = round(now * 1e6)
        return cls(micros / 1e6, f"{PREFIX}{micros:014x}{secrets.token_hex(9)}")

    @classmethod
    def read(cls, text: str) -> Self | None:
        """None for a text that is not an id."""
        found = _ID.fullmatch(text)
        return cls(int(found[1], 16) / 1e6, text) if found else None


#: ``metadata[name]=value``
_LABEL = re.compile(r"metadata\[(.*)\]", re.DOTALL)


def chat_query(query: Mapping[str, str], scope: str) -> StoredQuery:
    """The caller's own chat completions that they want. Raises ``BadRequest``."""
    labels = {found[1]: value for name, value in query.items() if (found := _LABEL.fullmatch(name))}
    return StoredQuery(
        AnswerKind.CHAT,
        scope,
        after=_after(query),
        limit=query_limit(query),
        newest_first=query_newest_first(query, "asc"),
        model=query.get("model"),
        labels=parse_metadata(labels),
    )


def unknown_after() -> BadRequest:
    return BadRequest("'after' must be the 'last_id' of the page before.", code="invalid_value", param="after")


def _after(query: Mapping[str, str]) -> ChatId | None:
    after = query.get("after")
    if after is None:
        return None
    id = ChatId.read(after)
    if id is None:
        raise unknown_after()
    return id


#: members of the request that are shown with the answer
_REQUEST_FIELDS = (
    "temperature",
    "top_p",
    "presence_penalty",
    "frequency_penalty",
    "seed",
    "tools",
    "tool_choice",
    "response_format",
)


def chat_object(answer: StoredAnswer) -> Document:
    """The chat completion object."""
    request = orjson.loads(answer.request)
    fields = {name: request.get(name) for name in _REQUEST_FIELDS} | {"input_user": request.get("user")}
    document: Document = orjson.loads(answer.document or b"{}")
    return fields | document | {"metadata": orjson.loads(answer.metadata)}


def chat_messages(answer: StoredAnswer) -> list[Document]:
    """The request's messages. Their ids are made from the answer's and their places."""
    return [_message(message, f"{answer.id}-{position}") for position, message in enumerate(orjson.loads(answer.input))]


def _message(message: Any, id: str) -> Document:
    if not isinstance(message, dict):
        # a model server took it for something
        message = {"role": None, "content": dump(message).decode()}
    content = message.get("content")
    parts = content if isinstance(content, list) else None
    return {**message, "id": id, "content": None if parts is not None else content, "content_parts": parts}


#: sixteen labels, each character escaped, and then some
_LONGEST_BODY = 256 * 1024


async def listing(request: Request) -> Response:
    """``GET /v1/chat/completions?model=&metadata[name]=&after=&limit=&order=``, oldest first by default."""
    query = chat_query(request.query_params, exchange_of(request).caller.owner)
    answers, more = await job_services(request).answers.page(query)
    return list_response([chat_object(answer) for answer in answers], more=more)


async def retrieve(request: Request) -> Response:
    """``GET /v1/chat/completions/{id}``."""
    return json_response(chat_object(await _stored_chat(request)))


class Update:
    """``POST /v1/chat/completions/{id}``: other labels, in place of all those there are. An ASGI application."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        connection = HTTPConnection(scope)
        with Listening(scope, receive):
            settings = job_services(connection).proxy.settings
            body = parse(await read(scope, receive, settings, _LONGEST_BODY))
            if "metadata" not in body:
                raise validation.missing("metadata")
            metadata = dump_labels(parse_metadata(body["metadata"]))
            answer = await _stored_chat(connection)
            await job_services(connection).answers.relabel(answer.id, metadata)
            await json_response(chat_object(replace(answer, metadata=metadata)))(scope, receive, send)


async def delete(request: Request) -> Response:
    """``DELETE /v1/chat/completions/{id}``."""
    answer = await _stored_chat(request)
    await job_services(request).answers.delete(answer.id)
    return json_response({"object": "chat.completion.deleted", "id": answer.id, "deleted": True})


async def messages(request: Request) -> Response:
    """``GET /v1/chat/completions/{id}/messages?after=&limit=&order=``: the request's own, in their order."""
    limit, newest_first = query_limit(request.query_params), query_newest_first(request.query_params, "asc")
    listed = chat_messages(await _stored_chat(request))
    if newest_first:
        listed.reverse()
    after = request.query_params.get("after")
    if after is not None:
        positions = [position for position, message in enumerate(listed) if message["id"] == after]
        if not positions:
            raise unknown_after()
        listed = listed[positions[0] + 1 :]
    return list_response(listed[:limit], more=len(listed) > limit)


async def _stored_chat(connection: HTTPConnection) -> StoredAnswer:
    """Raises ``NotFound`` for an id that is none of this caller's."""
    id, scope = connection.path_params["id"], exchange_of(connection).caller.owner
    answer = None
    # what could be no id goes no further: not every database takes every text
    if ChatId.read(id) is not None:
        answer = await job_services(connection).answers.find(id, AnswerKind.CHAT, scope)
    if answer is None:
        raise NotFound(f"Chat completion with id '{id[:100]}' not found.")
    return answer


async def store_chat(incoming: Incoming) -> Prepared:
    """What the row ``chat`` of the table of endpoints does ahead of the cache if its answers are stored on demand."""
    request = await incoming.parse()
    if not request.parsed.store:
        return Prepared(request)
    services: JobServices = incoming.scope["state"]["jobs"]
    recorder = await offload(len(request.raw), ChatRecorder, request, incoming.exchange, services.answers)
    return Prepared(recorder.request, recorder.keep, is_repeatable=False)


class ChatRecorder:
    """Stores one answer once it is complete. ``request`` is the request for it under its id.

    Raises ``BadRequest`` for labels that are not valid.
    """

    def __init__(self, request: CacheableRequest, exchange: Exchange, answers: StoredAnswers) -> None:
        self._body = request.body()
        self._labels = parse_metadata(self._body.get("metadata"))
        self._id = ChatId.new(exchange.started_at)
        self._echo: dict[str, Any] = {**echo_of(self._body), "id": self._id.text}
        self._exchange = exchange
        self._answers = answers
        self.request = replace(request, parsed=replace(request.parsed, echo=self._echo))

    def keep(self) -> None:
        """Called with the whole answer in the exchange."""
        exchange, parsed = self._exchange, self.request.parsed
        # there is a body once the whole of it came
        document = peek(exchange.response_body)
        if exchange.stored is Reason.TOO_LARGE and document is None:
            self._answers.lose()
        if document is None or self.request.endpoint.dialect.flaw(document) is not None:
            return
        own = {"object": "chat.completion", "request_id": exchange.request_id}
        messages = self._body.get("messages")
        self._answers.keep(
            StoredAnswer(
                id=self._id.text,
                kind=AnswerKind.CHAT,
                scope=exchange.caller.owner,
                model=parsed.model,
                created_at=self._id.time,
                request=canonical(self._body, {"messages"}),
                input=dump(messages if isinstance(messages, list) else []),
                document=dump(with_echo(document, self._echo) | own),
                stream=parsed.stream,
                metadata=dump_labels(self._labels),
            )
        )
