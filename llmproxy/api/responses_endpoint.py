"""``POST /v1/responses`` if Responses are kept: answered as ever, under an id of its own, or in the background."""

import time
from contextlib import nullcontext
from dataclasses import replace
from functools import partial

import orjson
from starlette.types import Send

from llmproxy.api.responses_events import EventReplay
from llmproxy.api.responses_model import conversation_before, response_object
from llmproxy.api.services import JobServices
from llmproxy.jobs.model import Event, JobKind, JobStatus, NewCall, NewJob, forwarded_headers, new_id
from llmproxy.jobs.stored_model import AnswerKind, StoredAnswer
from llmproxy.proxy.asgi import SocketClient
from llmproxy.proxy.endpoint import Incoming, Prepared
from llmproxy.proxy.offload import offload
from llmproxy.proxy.request import CacheableRequest, ParsedBody
from llmproxy.proxy.response import JSON, type_headers
from llmproxy.wire.cache_headers import parse_directives
from llmproxy.wire.documents import dump
from llmproxy.wire.echo import with_echo
from llmproxy.wire.endpoints import BY_PATH
from llmproxy.wire.errors import NotFound, TooLarge
from llmproxy.wire.exchange import Exchange
from llmproxy.wire.formats.responses import EventWriter
from llmproxy.wire.formats.responses_request import ResponsesRequest
from llmproxy.wire.headers import HeaderList
from llmproxy.wire.json_body import parse
from llmproxy.wire.validation import idempotency_key
from llmproxy.wire.vocabulary import Reason

#: of such an answer nothing could be shown again
_UNUSABLE = frozenset({Reason.MALFORMED, Reason.INCOMPLETE, Reason.STATUS})


async def store_response(incoming: Incoming) -> Prepared | None:
    """What the row ``responses`` of the table of endpoints does ahead of the cache: an id of its own for a Response
    that is kept, the conversation before it, and work in the background, which is answered at once."""
    services: JobServices = incoming.scope["state"]["jobs"]
    raw, exchange = incoming.raw, incoming.exchange
    with incoming.unreadable_passes():
        document = await offload(len(raw), parse, raw)
        request = ResponsesRequest.read(document, store=services.proxy.settings.store_answers)
    if request.plain:
        return Prepared(await incoming.parse())
    # what only the proxy can do is the proxy's to refuse
    is_lenient = not (request.background or request.previous_id)
    with incoming.unreadable_passes() if is_lenient else nullcontext():
        body = await _effective(request, raw, exchange, services)
    if request.background:
        accepted = await accept(services, exchange, request, body, incoming.scope["headers"])
        await _tell(accepted, request, services, incoming.client, incoming.send)
        return None
    cacheable = await incoming.parse(body, is_lenient=is_lenient)
    own: dict[str, object] = {"previous_response_id": request.previous_id}
    if request.store:
        own |= {"id": new_id(JobKind.RESPONSE), "store": True, "background": False}
    cacheable = replace(cacheable, parsed=replace(cacheable.parsed, echo={**(cacheable.parsed.echo or {}), **own}))
    keep = partial(_keep, request, cacheable, exchange, services)
    return Prepared(cacheable, keep if request.store else None, is_repeatable=False)


async def _effective(request: ResponsesRequest, raw: bytes, exchange: Exchange, services: JobServices) -> bytes:
    """The body for the model server, the conversation so far in it."""
    items = []
    if request.previous_id is not None:
        items = await conversation_before(services.answers, request.previous_id, exchange.caller.owner)
    body = request.effective(raw, items)
    limit = services.proxy.settings.max_body_bytes
    if len(body) > limit:
        raise TooLarge(f"With the conversation before it, the request is larger than {limit} bytes.")
    return body


async def _tell(
    answer: StoredAnswer, request: ResponsesRequest, services: JobServices, client: SocketClient, send: Send
) -> None:
    """Answers the request for a Response of the background: with its present state, or with the stream of its
    events."""
    if request.stream and answer.stream:
        await EventReplay(answer, -1, services, client, send).run()
        return
    body = dump(response_object(answer))
    headers = [(b"content-length", b"%d" % len(body)), *type_headers(JSON, stream=False)]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})


def _keep(request: ResponsesRequest, cacheable: CacheableRequest, exchange: Exchange, services: JobServices) -> None:
    """Makes a finished answer one that can be asked for again."""
    if exchange.error or exchange.stored in _UNUSABLE:
        return
    if not exchange.response_body:
        # it went out piece by piece: it is too large to be held as a whole
        services.answers.lose()
        return
    echo = cacheable.parsed.echo or {}
    document = with_echo(orjson.loads(exchange.response_body), echo)
    if not isinstance(document.get("output"), list):
        # an error in the place of a Response
        return
    services.answers.keep(
        StoredAnswer(
            id=document["id"],
            kind=AnswerKind.RESPONSE,
            scope=exchange.caller.owner,
            model=cacheable.parsed.model,
            created_at=time.time(),
            request=request.without_input(),
            input=request.input_json(),
            document=dump(document),
            stream=request.stream,
            previous_id=request.previous_id or "",
        )
    )


async def accept(
    services: JobServices, exchange: Exchange, request: ResponsesRequest, body: bytes, headers: HeaderList
) -> StoredAnswer:
    """The Response as it waits for a worker; with an ``Idempotency-Key`` that is known, the first one's as it stands.

    ``body`` is the one for the model server. Raises ``BadRequest`` for one that no model server could be sent,
    ``NotFound`` if the first one's is gone.
    """
    parsed = await services.proxy.memo.parsed(BY_PATH[exchange.path], body)
    # of its own: it takes as long as somebody follows
    exchange.endpoint = "responses-background"
    exchange.model, exchange.stream = parsed.model, request.stream
    now = services.queue.clock()
    new = _job(services, exchange, request, parsed, headers, now)
    answer = _answer(new, request, now)
    job = await services.queue.submit(new, [NewCall(0, body)], answer, _opening(answer) if answer.stream else ())
    if job.id == new.id:
        return answer
    first = await services.answers.find(job.id, AnswerKind.RESPONSE, new.scope)
    if first is None:
        raise NotFound(f"The response of this Idempotency-Key, '{job.id}', is not kept any more.")
    return first


def _job(
    services: JobServices,
    exchange: Exchange,
    request: ResponsesRequest,
    parsed: ParsedBody,
    headers: HeaderList,
    now: float,
) -> NewJob:
    directives = parse_directives(headers)
    return NewJob(
        JobKind.RESPONSE,
        exchange.path,
        model=_stored(parsed.model),
        scope=exchange.caller.owner,
        caller=exchange.caller.name,
        user=_stored(directives.user or parsed.user or exchange.user),
        session=directives.session or exchange.session,
        headers=forwarded_headers(headers),
        detail={
            "store": request.store,
            "stream": request.stream,
            "previous_response_id": request.previous_id,
        },
        webhook_url=services.proxy.settings.webhook_url,
        idempotency_key=idempotency_key(headers),
        id=new_id(JobKind.RESPONSE),
        created_at=now,
    )


def _answer(new: NewJob, request: ResponsesRequest, now: float) -> StoredAnswer:
    return StoredAnswer(
        id=new.id,
        kind=AnswerKind.RESPONSE,
        scope=new.scope,
        model=new.model,
        created_at=now,
        request=request.without_input(),
        input=request.input_json(),
        background=True,
        stream=request.stream,
        previous_id=request.previous_id or "",
        job=JobStatus.PENDING,
    )


def _opening(answer: StoredAnswer) -> list[Event]:
    writer, queued = EventWriter(), response_object(answer)
    kinds = ("response.created", "response.queued")
    return [(number, writer.event(kind, response=queued)) for number, kind in enumerate(kinds)]


def _stored(text: str) -> str:
    """A database takes no NUL in a text."""
    return text.replace("\0", "")
