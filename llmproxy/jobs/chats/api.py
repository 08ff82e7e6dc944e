"""What can be asked of chat completions that were stored: each caller sees those of their own scope."""

from dataclasses import replace

from starlette.requests import HTTPConnection, Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from llmproxy.jobs.answers.answer import AnswerKind, StoredAnswer
from llmproxy.jobs.answers.labels import labels_of, written
from llmproxy.jobs.chats.chat_ids import ChatId
from llmproxy.jobs.chats.params import asked_list, unknown_after
from llmproxy.jobs.chats.serialize import document_of, messages_of
from llmproxy.jobs.json_response import page, rendered
from llmproxy.jobs.services import exchange_of, job_services
from llmproxy.proxy.asgi import read
from llmproxy.proxy.endpoint import listening
from llmproxy.wire import validation
from llmproxy.wire.errors import NotFound
from llmproxy.wire.json_body import parse
from llmproxy.wire.validation import query_limit, query_newest_first

#: sixteen labels, each character escaped, and then some
_LONGEST_BODY = 256 * 1024


async def listing(request: Request) -> Response:
    """``GET /v1/chat/completions?model=&metadata[name]=&after=&limit=&order=``, oldest first unless told otherwise."""
    wanted = asked_list(request.query_params, exchange_of(request).caller.owner)
    answers, more = await job_services(request).answers.page(wanted)
    return page([document_of(answer) for answer in answers], more=more)


async def retrieve(request: Request) -> Response:
    """``GET /v1/chat/completions/{id}``."""
    return rendered(document_of(await _found(request)))


class Update:
    """``POST /v1/chat/completions/{id}``: other labels, in place of all those there are. An ASGI application."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        connection = HTTPConnection(scope)
        with listening(receive, exchange_of(connection)):
            settings = job_services(connection).proxy.settings
            body = parse(await read(receive, scope["headers"], settings, _LONGEST_BODY))
            if "metadata" not in body:
                raise validation.missing("metadata")
            metadata = written(labels_of(body["metadata"]))
            answer = await _found(connection)
            await job_services(connection).answers.relabel(answer.id, metadata)
            await rendered(document_of(replace(answer, metadata=metadata)))(scope, receive, send)


async def delete(request: Request) -> Response:
    """``DELETE /v1/chat/completions/{id}``."""
    answer = await _found(request)
    await job_services(request).answers.delete(answer.id)
    return rendered({"object": "chat.completion.deleted", "id": answer.id, "deleted": True})


async def messages(request: Request) -> Response:
    """``GET /v1/chat/completions/{id}/messages?after=&limit=&order=``: the request's own, in their order."""
    limit, newest_first = query_limit(request.query_params), query_newest_first(request.query_params, "asc")
    listed = messages_of(await _found(request))
    if newest_first:
        listed.reverse()
    after = request.query_params.get("after")
    if after is not None:
        places = [place for place, message in enumerate(listed) if message["id"] == after]
        if not places:
            raise unknown_after()
        listed = listed[places[0] + 1 :]
    return page(listed[:limit], more=len(listed) > limit)


async def _found(connection: HTTPConnection) -> StoredAnswer:
    """Raises ``NotFound`` for an id that is none of this caller's."""
    id, scope = connection.path_params["id"], exchange_of(connection).caller.owner
    answer = None
    # what could be no id goes no further: not every database takes every text
    if ChatId.read(id) is not None:
        answer = await job_services(connection).answers.find(id, AnswerKind.CHAT, scope)
    if answer is None:
        raise NotFound(f"Chat completion with id '{id[:100]}' not found.")
    return answer
