"""OpenAI's Batches as their callers see them: ``/v1/batches``."""

import re

from starlette.requests import HTTPConnection, Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from llmproxy.api import file_rows
from llmproxy.api.batch_model import STATUS, WINDOW_SECONDS, BatchSpec, Detail, batch_object, read_batch_spec
from llmproxy.api.http import json_response, list_response
from llmproxy.api.services import JobServices, exchange_of, job_services
from llmproxy.jobs import lifecycle, queries
from llmproxy.jobs.blobs import NAME
from llmproxy.jobs.model import File, Job, JobKind, JobStatus, NewJob, forwarded_headers
from llmproxy.jobs.queries import JobQuery
from llmproxy.proxy.asgi import read
from llmproxy.proxy.endpoint import Listening
from llmproxy.wire.cache_headers import parse_directives
from llmproxy.wire.errors import BadRequest, Conflict, NotFound
from llmproxy.wire.exchange import Exchange
from llmproxy.wire.headers import HeaderList
from llmproxy.wire.json_body import parse
from llmproxy.wire.validation import idempotency_key, query_limit

#: sixteen pairs of metadata, each character escaped, and then some
_LONGEST_BODY = 256 * 1024
_ID = re.compile("batch_[0-9a-f]{32}")


class CreateBatch:
    """``POST /v1/batches``, an ASGI application."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        connection = HTTPConnection(scope)
        services, exchange = job_services(connection), exchange_of(connection)
        with Listening(scope, receive):
            spec = read_batch_spec(parse(await read(scope, receive, services.proxy.settings, _LONGEST_BODY)))
            job = await _submitted(spec, scope["headers"], exchange, services)
            await json_response(batch_object(job))(scope, receive, send)


create = CreateBatch()


async def _submitted(spec: BatchSpec, headers: HeaderList, exchange: Exchange, services: JobServices) -> Job:
    directives = parse_directives(headers)
    file = await _input_file(spec.input_file_id, exchange.caller.owner, services)
    detail = Detail(spec.input_file_id, file.id if file else None, spec.metadata, spec.output_seconds)
    new = NewJob(
        JobKind.BATCH,
        spec.endpoint,
        scope=exchange.caller.owner,
        caller=exchange.caller.name,
        user=directives.user,
        session=directives.session,
        headers=forwarded_headers(headers),
        detail=detail.members(),
        expires_at=services.queue.clock() + WINDOW_SECONDS,
        webhook_url=services.proxy.settings.webhook_url,
        idempotency_key=idempotency_key(headers),
    )
    return await services.queue.submit(new, ())


async def _input_file(id: str, scope: str, services: JobServices) -> File | None:
    """None if there is no such file: validation reports it, as OpenAI does."""
    file = await file_rows.get(services.store, id, scope, services.queue.clock()) if NAME.fullmatch(id) else None
    if file is not None and file.purpose != "batch":
        message = f"The purpose of file {id} is '{file.purpose}'; a batch needs one with the purpose 'batch'."
        raise BadRequest(message, code="invalid_purpose", param="input_file_id")
    return file


async def batches(request: Request) -> Response:
    """``GET /v1/batches?after=&limit=``, newest first."""
    after = request.query_params.get("after")
    if after is not None and not _ID.fullmatch(after):
        raise BadRequest(
            f"Invalid 'after': {after[:100]!r} is not the id of a batch.", code="invalid_value", param="after"
        )
    scope = exchange_of(request).caller.owner
    query = JobQuery(kind=JobKind.BATCH, scope=scope, after=after, limit=query_limit(request.query_params))
    jobs, more = await queries.page(job_services(request).store, query)
    return list_response([batch_object(job) for job in jobs], more=more)


async def batch(request: Request) -> Response:
    """``GET /v1/batches/{id}``."""
    return json_response(batch_object(await _batch(request)))


async def cancel(request: Request) -> Response:
    """``POST /v1/batches/{id}/cancel``; a second time does no harm. The body is not read.

    Raises ``Conflict`` for a batch that came to another end.
    """
    batch = await _batch(request)
    job, _ = await lifecycle.cancel(job_services(request).queue, batch.id)
    if job is None:
        raise _unknown(batch.id)
    if job.status not in (JobStatus.CANCELLING, JobStatus.CANCELLED):
        raise Conflict(f"Cannot cancel a batch with status '{STATUS[job.status]}'.")
    return json_response(batch_object(job))


async def _batch(request: Request) -> Job:
    """The batch that the path names. Raises ``NotFound``, also for one of another caller's scope."""
    id, scope = request.path_params["id"], exchange_of(request).caller.owner
    job = await queries.job(job_services(request).store, id, JobKind.BATCH, scope) if _ID.fullmatch(id) else None
    if job is None:
        raise _unknown(id)
    return job


def _unknown(id: str) -> NotFound:
    return NotFound(f"No batch found with id '{id[:100]}'.", param="id")
