"""A Response by its id: itself, its events, its input, its cancellation and its deletion."""

import orjson
from starlette.requests import HTTPConnection, Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from llmproxy.api.http import json_response, list_response
from llmproxy.api.responses_events import EventReplay
from llmproxy.api.responses_model import is_id, response_object
from llmproxy.api.services import exchange_of, job_services
from llmproxy.jobs import lifecycle
from llmproxy.jobs.stored_model import AnswerKind, StoredAnswer
from llmproxy.proxy.endpoint import Listening
from llmproxy.wire.errors import BadRequest, NotFound
from llmproxy.wire.formats.responses_request import listed_items
from llmproxy.wire.validation import query_flag, query_limit, query_newest_first, query_number


class Retrieve:
    """``GET /v1/responses/{id}``, an ASGI application. ``include`` changes nothing: whatever there is, is shown."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        connection = HTTPConnection(scope)
        answer = await _stored_response(connection)
        if scope["method"] == "HEAD" or not query_flag(connection.query_params, "stream"):
            await json_response(response_object(answer))(scope, receive, send)
            return
        if not (answer.background and answer.stream):
            lacking = "stream" if answer.background else "background"
            raise BadRequest(
                f"This response cannot be streamed because it was not created with {lacking}=true.", param="stream"
            )
        after = query_number(connection.query_params, "starting_after", -1, 0)
        # no event that is kept has padding: asked for or not, there is none
        query_flag(connection.query_params, "include_obfuscation")
        with Listening(scope, receive) as client:
            await EventReplay(answer, after, job_services(connection), client, send).run()


async def cancel(request: Request) -> Response:
    """``POST /v1/responses/{id}/cancel``; one that is cancelled already stays as it is."""
    answer = await _stored_response(request)
    if not answer.background:
        raise BadRequest("Cannot cancel a synchronous response.")
    await lifecycle.cancel(job_services(request).queue, answer.id)
    answer = await _stored_response(request)
    document = response_object(answer)
    if document["status"] != "cancelled":
        raise BadRequest(f"Cannot cancel a {document['status']} response.")
    return json_response(document)


async def delete(request: Request) -> Response:
    """``DELETE /v1/responses/{id}``."""
    answer = await _stored_response(request)
    services = job_services(request)
    if answer.job is not None and not answer.job.over:
        raise BadRequest("Cannot delete a response that is in progress: cancel it first.")
    await services.answers.delete(answer.id)
    if answer.job is not None:
        await lifecycle.delete_job(services.queue, answer.id)
    return json_response({"id": answer.id, "object": "response", "deleted": True})


async def input_items(request: Request) -> Response:
    """``GET /v1/responses/{id}/input_items``: the request's own items, newest first by default."""
    answer = await _stored_response(request)
    limit, newest_first = query_limit(request.query_params), query_newest_first(request.query_params, "desc")
    items = listed_items(orjson.loads(answer.input), answer.id)
    if newest_first:
        items.reverse()
    after = request.query_params.get("after")
    if after is not None:
        positions = [position for position, item in enumerate(items) if item["id"] == after]
        # one that is not known ends the list
        items = items[positions[0] + 1 :] if positions else []
    return list_response(items[:limit], more=len(items) > limit)


async def _stored_response(connection: HTTPConnection) -> StoredAnswer:
    """Raises ``NotFound`` for an id that is none of this caller's."""
    id = connection.path_params["id"]
    answer = None
    if is_id(id):
        scope = exchange_of(connection).caller.owner
        answer = await job_services(connection).answers.find(id, AnswerKind.RESPONSE, scope)
    if answer is None:
        raise NotFound(f"Response with id '{id[:100]}' not found.")
    return answer
