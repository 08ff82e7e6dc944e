"""Tasks as their callers see them: completions now or as a task, the list, one with its results, and the end of one."""

import asyncio
import re
from collections.abc import Callable
from time import perf_counter

from starlette.requests import HTTPConnection, Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from llmproxy.api import tasks_model
from llmproxy.api.http import json_response
from llmproxy.api.services import JobServices, exchange_of, job_services
from llmproxy.api.tasks_model import (
    LONGEST_NAME,
    PATH,
    TaskRequest,
    body_writer,
    from_cache,
    model_for,
    read_chat_answer,
    read_many,
    read_single,
)
from llmproxy.config.settings import Settings
from llmproxy.jobs import lifecycle, queries
from llmproxy.jobs.call import NO_ANSWERS, fetch_answer
from llmproxy.jobs.model import Job, JobKind, JobStatus, NewCall, NewJob, forwarded_headers
from llmproxy.jobs.queries import JobQuery
from llmproxy.proxy.asgi import peer_of, read
from llmproxy.proxy.endpoint import Listening
from llmproxy.proxy.listen import Client
from llmproxy.proxy.offload import offload
from llmproxy.proxy.pipeline import parse_request
from llmproxy.wire.cache_headers import parse_directives
from llmproxy.wire.endpoints import BY_PATH
from llmproxy.wire.errors import BadRequest, Conflict, NotFound, UpstreamBroke
from llmproxy.wire.exchange import Exchange
from llmproxy.wire.headers import HeaderList
from llmproxy.wire.validation import idempotency_key, query_choice, query_limit, query_number

#: those that a task can have
STATUSES = (JobStatus.PENDING, JobStatus.RUNNING, JobStatus.COMPLETED, JobStatus.FAILED, JobStatus.CANCELLED)

_MOST_RESULTS, _USUAL_RESULTS = 1000, 100
_ID = re.compile("task_[0-9a-f]{32}")


async def tasks(request: Request) -> Response:
    """``GET /api/tasks?status=&user_id=&limit=&cursor=``, newest first; ``next`` is the next page's cursor."""
    query = request.query_params
    status = query_choice(query, "status", STATUSES)
    user, cursor = query.get("user_id"), query.get("cursor")
    if user is not None and (len(user) > LONGEST_NAME or not user.isprintable()):
        raise BadRequest(f"'user_id' has up to {LONGEST_NAME} printable characters.", param="user_id")
    if cursor is not None and not _ID.fullmatch(cursor):
        raise BadRequest("'cursor' must be the 'next' of the page before.", param="cursor")
    job_query = JobQuery(
        kind=JobKind.TASK,
        scope=exchange_of(request).caller.owner,
        status=JobStatus(status) if status is not None else None,
        user=user,
        after=cursor,
        limit=query_limit(query),
    )
    page, more = await queries.page(job_services(request).store, job_query)
    data = [tasks_model.task(job) for job in page]
    return json_response({"object": "list", "data": data, "next": page[-1].id if more else None})


async def task(request: Request) -> Response:
    """``GET /api/tasks/{id}?limit=&cursor=``: with results in the order of the prompts; ``next`` is the next page's
    cursor, the index of the last one."""
    limit = query_limit(request.query_params, _USUAL_RESULTS, _MOST_RESULTS)
    after = query_number(request.query_params, "cursor", -1, 0)
    return await _with_results(await load_task(request), job_services(request), after, limit)


async def cancel(request: Request) -> Response:
    """``DELETE /api/tasks/{id}``: ends it, calls in flight included; a second time does no harm. Raises
    ``Conflict``."""
    services, task_job = job_services(request), await load_task(request)
    job, done = await lifecycle.cancel(services.queue, task_job.id)
    if job is None:
        raise _unknown(task_job.id)
    if not done and job.status is not JobStatus.CANCELLED:
        raise Conflict(f"Task {job.id} is {job.status}: it cannot be cancelled any more.")
    return await _with_results(job, services, -1, _USUAL_RESULTS)


async def load_task(connection: HTTPConnection) -> Job:
    """The task that the path names. Raises ``NotFound``, also for one of another caller's scope."""
    id, scope = connection.path_params["id"], exchange_of(connection).caller.owner
    job = await queries.job(job_services(connection).store, id, JobKind.TASK, scope) if _ID.fullmatch(id) else None
    if job is None:
        raise _unknown(id)
    return job


async def _with_results(job: Job, services: JobServices, after: int, limit: int) -> Response:
    items = await queries.calls(services.store, job.id, after=after, limit=limit)
    results = [tasks_model.result(item) for item in items]
    document = {
        **tasks_model.task(job),
        "attempts": await queries.attempts(services.store, job.id),
        "results": results,
        "next": items[-1].position if items and items[-1].position + 1 < job.total else None,
    }
    if job.detail.get("single"):
        document["result"] = results[0] if results else None
    return json_response(document)


def _unknown(id: str) -> NotFound:
    return NotFound(f"No task found with id '{id[:100]}'.")


#: prompts turned into calls before others get their turn
_AT_ONCE = 200
#: set anew for our document
_OF_THE_BODY = frozenset({b"content-length", b"content-type"})

Read = Callable[[bytes, Settings], TaskRequest]


class Completions:
    """An ASGI application that reads requests with ``read_single`` or ``read_many``."""

    def __init__(self, reader: Read) -> None:
        self._read = reader

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        connection = HTTPConnection(scope)
        services, exchange = job_services(connection), exchange_of(connection)
        settings = services.proxy.settings
        with Listening(scope, receive) as client:
            raw = await read(scope, receive, settings)
            task_request = await offload(len(raw), self._read, raw, settings)
            if task_request.background:
                response = _accepted(task_request, await _submitted(task_request, scope["headers"], exchange, services))
            else:
                response = await _answer(task_request, scope, exchange, services, client)
            await response(scope, receive, send)


one_prompt = Completions(read_single)
many_prompts = Completions(read_many)


async def _answer(
    task_request: TaskRequest, scope: Scope, exchange: Exchange, services: JobServices, client: Client
) -> Response:
    """The answer to a request's only prompt. Raises ``ProxyError``, ``ClientLeft``."""
    exchange.user, exchange.session = task_request.user, task_request.session
    model = model_for(task_request, services.proxy.upstreams)
    body = body_writer(task_request, model)(task_request.prompts[0])
    request = await parse_request(
        exchange, BY_PATH[PATH], body, PATH.encode(), scope["headers"], peer_of(scope), services.proxy
    )
    answer = await fetch_answer(exchange, request, services.proxy, client)
    chat_answer = read_chat_answer(answer.body)
    if chat_answer.response is None and exchange.stored in NO_ANSWERS:
        raise UpstreamBroke("The model server gave something else in the place of an answer.")
    response = json_response(
        {
            "response": chat_answer.response,
            "model": chat_answer.model or model or None,
            "cached": from_cache(exchange.cache),
            "processing_time": round(perf_counter() - exchange.started, 6),
            "request_id": exchange.request_id,
            "usage": chat_answer.usage,
        }
    )
    response.raw_headers += [header for header in answer.headers if header[0] not in _OF_THE_BODY]
    return response


async def _submitted(task_request: TaskRequest, headers: HeaderList, exchange: Exchange, services: JobServices) -> Job:
    """The job that does what was requested, on the disk. Raises ``BadRequest``, ``Unavailable``."""
    key = idempotency_key(headers)
    # headers must be right before anything is stored: later no caller is there to see the error
    directives = parse_directives(headers)
    model = model_for(task_request, services.proxy.upstreams)
    new = NewJob(
        JobKind.TASK,
        PATH,
        model=model,
        scope=exchange.caller.owner,
        caller=exchange.caller.name,
        user=directives.user or task_request.user,
        session=directives.session or task_request.session,
        headers=forwarded_headers(headers),
        detail={"instruction_type": task_request.instruction_type, "single": task_request.single},
        webhook_url=task_request.webhook_url,
        idempotency_key=key,
    )
    make, calls = body_writer(task_request, model), []
    for position, prompt in enumerate(task_request.prompts):
        calls.append(NewCall(position, make(prompt)))
        if position % _AT_ONCE == _AT_ONCE - 1:
            await asyncio.sleep(0)
    return await services.queue.submit(new, calls)


def _accepted(task_request: TaskRequest, job: Job) -> Response:
    location = f"/api/tasks/{job.id}"
    if task_request.single:
        message = f"The task is {job.status}; its result will be at {location}."
        detail = {"task_id": job.id, "status": job.status, "message": message}
        document: dict[str, object] = {"task_id": job.id, "status": job.status, "detail": detail}
    else:
        document = {"task_id": job.id, "status": job.status, "total": job.total}
    return json_response(document, 202, {"location": location})
