"""Takes in a Response of the background: it is on the disk before its caller is told of it."""

from dataclasses import replace

from sqlalchemy.ext.asyncio import AsyncConnection

from llmproxy.jobs.answers import answers
from llmproxy.jobs.answers.answer import AnswerKind, StoredAnswer
from llmproxy.jobs.job import Headers, Job, NewCall, NewJob, forwarded_headers, new_id
from llmproxy.jobs.responses import events
from llmproxy.jobs.responses.serialize import document_of
from llmproxy.jobs.services import JobServices
from llmproxy.jobs.states import JobKind
from llmproxy.proxy.request import ParsedBody
from llmproxy.wire.cache_headers import parse_directives
from llmproxy.wire.endpoints import BY_PATH
from llmproxy.wire.errors import NotFound
from llmproxy.wire.exchange import Exchange
from llmproxy.wire.formats.responses import EventWriter
from llmproxy.wire.formats.responses_request import ResponsesRequest
from llmproxy.wire.validation import idempotency_key


async def accept(
    services: JobServices, exchange: Exchange, request: ResponsesRequest, body: bytes, headers: Headers
) -> StoredAnswer:
    """The Response as it waits for a worker; with an ``Idempotency-Key`` that is known, the first one's as it stands.

    ``body`` is the one for the model server. Raises ``BadRequest`` for one that no model server could be sent,
    ``NotFound`` where the first one's is gone.
    """
    parsed = await services.proxy.memo.parsed(BY_PATH[exchange.path], body)
    # of its own: it takes as long as somebody follows
    exchange.endpoint = "responses-background"
    exchange.model, exchange.stream = parsed.model, request.stream
    new = _job(services, exchange, request, parsed, headers)
    accepted = _answer(new, request)

    async def also(connection: AsyncConnection, job: Job) -> None:
        answer = replace(accepted, created_at=job.created_at, job=job.status)
        await answers.put(connection, answer)
        if answer.stream:
            await events.put(connection, answer.id, _opening(answer))

    job = await services.queue.submit(new, [NewCall(0, body)], also)
    if job.id == new.id:
        return replace(accepted, created_at=job.created_at, job=job.status)
    known = await services.answers.find(job.id, AnswerKind.RESPONSE, new.scope)
    if known is None:
        raise NotFound(f"The response of this Idempotency-Key, '{job.id}', is not kept any more.")
    return known


def _job(
    services: JobServices, exchange: Exchange, request: ResponsesRequest, parsed: ParsedBody, headers: Headers
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
    )


def _answer(new: NewJob, request: ResponsesRequest) -> StoredAnswer:
    """Not accepted yet: the queue says when it was, and as what."""
    return StoredAnswer(
        id=new.id,
        kind=AnswerKind.RESPONSE,
        scope=new.scope,
        model=new.model,
        created_at=0.0,
        request=request.beside_input(),
        input=request.input_json(),
        background=True,
        stream=request.stream,
        previous_id=request.previous_id or "",
    )


def _opening(answer: StoredAnswer) -> list[events.Event]:
    writer, queued = EventWriter(), document_of(answer)
    kinds = ("response.created", "response.queued")
    return [(number, writer.event(kind, response=queued)) for number, kind in enumerate(kinds)]


def _stored(text: str) -> str:
    """A database takes no NUL in a text."""
    return text.replace("\0", "")
