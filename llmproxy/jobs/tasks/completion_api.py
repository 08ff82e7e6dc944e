"""``POST /api/completions`` and ``POST /api/completions/batch``: answers now, or a task that will have them."""

import asyncio
from collections.abc import Callable
from time import perf_counter

from starlette.requests import HTTPConnection
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from llmproxy.config.settings import Settings
from llmproxy.jobs.call import NO_ANSWERS, answered
from llmproxy.jobs.job import Headers, Job, NewCall, NewJob, forwarded_headers
from llmproxy.jobs.json_response import rendered
from llmproxy.jobs.services import JobServices, exchange_of, job_services
from llmproxy.jobs.states import JobKind
from llmproxy.jobs.tasks.chat_request import PATH, asking, model_for, said
from llmproxy.jobs.tasks.order import Order, many, one
from llmproxy.jobs.tasks.serialize import from_cache
from llmproxy.proxy.asgi import peer_of, read
from llmproxy.proxy.endpoint import listening
from llmproxy.proxy.listen import Client
from llmproxy.proxy.offload import offload
from llmproxy.proxy.pipeline import parse_request
from llmproxy.wire.cache_headers import parse_directives
from llmproxy.wire.endpoints import BY_PATH
from llmproxy.wire.errors import UpstreamBroke
from llmproxy.wire.exchange import Exchange
from llmproxy.wire.validation import idempotency_key

#: prompts turned into calls before others get their turn
_AT_ONCE = 200
#: said anew for our document
_OF_THE_BODY = frozenset({b"content-length", b"content-type"})

Read = Callable[[bytes, Settings], Order]


class Completions:
    """An ASGI application that reads orders with ``order.one`` or ``order.many``."""

    def __init__(self, reader: Read) -> None:
        self._read = reader

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        connection = HTTPConnection(scope)
        services, exchange = job_services(connection), exchange_of(connection)
        settings = services.proxy.settings
        with listening(receive, exchange) as client:
            raw = await read(receive, scope["headers"], settings)
            order = await offload(len(raw), self._read, raw, settings)
            if order.background:
                response = _accepted(order, await _submitted(order, scope["headers"], exchange, services))
            else:
                response = await _answer(order, scope, exchange, services, client)
            await response(scope, receive, send)


one_prompt = Completions(one)
many_prompts = Completions(many)


async def _answer(order: Order, scope: Scope, exchange: Exchange, services: JobServices, client: Client) -> Response:
    """The answer to the order's only prompt. Raises ``ProxyError``, ``ClientLeft``."""
    exchange.user, exchange.session = order.user, order.session
    model = model_for(order, services.proxy.upstreams)
    body = asking(order, model)(order.prompts[0])
    asked = await parse_request(
        exchange, BY_PATH[PATH], body, PATH.encode(), scope["headers"], peer_of(scope), services.proxy
    )
    answer = await answered(exchange, asked, services.proxy, client)
    words = said(answer.body)
    if words.response is None and exchange.stored in NO_ANSWERS:
        raise UpstreamBroke("The model server gave something else in the place of an answer.")
    response = rendered(
        {
            "response": words.response,
            "model": words.model or model or None,
            "cached": from_cache(exchange.cache),
            "processing_time": round(perf_counter() - exchange.started, 6),
            "request_id": exchange.request_id,
            "usage": words.usage,
        }
    )
    response.raw_headers += [header for header in answer.headers if header[0] not in _OF_THE_BODY]
    return response


async def _submitted(order: Order, headers: Headers, exchange: Exchange, services: JobServices) -> Job:
    """The job that does what was ordered, on the disk. Raises ``BadRequest``, ``Unavailable``."""
    key = idempotency_key(headers)
    # what they say must be right before anything is kept: nobody is there to be told later
    directives = parse_directives(headers)
    model = model_for(order, services.proxy.upstreams)
    new = NewJob(
        JobKind.TASK,
        PATH,
        model=model,
        scope=exchange.caller.owner,
        caller=exchange.caller.name,
        user=directives.user or order.user,
        session=directives.session or order.session,
        headers=forwarded_headers(headers),
        detail={"instruction_type": order.instruction_type, "single": order.single},
        webhook_url=order.webhook_url,
        idempotency_key=key,
    )
    make, calls = asking(order, model), []
    for position, prompt in enumerate(order.prompts):
        calls.append(NewCall(position, make(prompt)))
        if position % _AT_ONCE == _AT_ONCE - 1:
            await asyncio.sleep(0)
    return await services.queue.submit(new, calls)


def _accepted(order: Order, job: Job) -> Response:
    location = f"/api/tasks/{job.id}"
    if order.single:
        message = f"The task is {job.status}; its result will be at {location}."
        detail = {"task_id": job.id, "status": job.status, "message": message}
        document: dict[str, object] = {"task_id": job.id, "status": job.status, "detail": detail}
    else:
        document = {"task_id": job.id, "status": job.status, "total": job.total}
    return rendered(document, 202, {"location": location})
