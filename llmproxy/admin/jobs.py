"""The operator's view of the job queue: jobs of every caller, how to stop one, and how to have it tried again."""

from typing import Any, TypeVar

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from llmproxy.api.http import json_response
from llmproxy.api.services import job_services
from llmproxy.jobs import lifecycle, queries
from llmproxy.jobs.model import Item, Job, JobKind, JobStatus
from llmproxy.jobs.queries import JobQuery
from llmproxy.wire.errors import Conflict, NotFound
from llmproxy.wire.validation import query_choice, query_limit, query_number

_MOST_ERRORS = 1000
#: of an id: longer ones are nobody's, and are not said back whole
_LONGEST_ID = 100

Word = TypeVar("Word", JobKind, JobStatus)


def routes() -> list[Route]:
    """The operator's URLs of jobs."""
    return [
        Route("/admin/jobs", jobs, methods=["GET"], name="admin-jobs"),
        Route("/admin/jobs/{id}", job, methods=["GET"], name="admin-job"),
        Route("/admin/jobs/{id}/cancel", cancel, methods=["POST"], name="admin-job-cancel"),
        Route("/admin/jobs/{id}/retry", retry, methods=["POST"], name="admin-job-retry"),
    ]


def routes_switched_off() -> list[Route]:
    """The same URLs if jobs are switched off."""
    paths = ("/admin/jobs", "/admin/jobs/{id:path}")
    return [Route(path, switched_off, methods=["GET", "POST"], name="admin-jobs") for path in paths]


async def jobs(request: Request) -> Response:
    """``GET /admin/jobs?kind=&status=&limit=&cursor=``, newest first; ``next`` is the next page's cursor."""
    query = request.query_params
    kind, status = query_choice(query, "kind", tuple(JobKind)), query_choice(query, "status", tuple(JobStatus))
    job_query = JobQuery(
        kind=JobKind(kind) if kind is not None else None,
        scope=None,
        status=JobStatus(status) if status is not None else None,
        after=query.get("cursor"),
        limit=query_limit(query),
    )
    page, more = await queries.page(job_services(request).store, job_query)
    return json_response(
        {"object": "list", "data": [_job_json(each) for each in page], "next": page[-1].id if more else None}
    )


async def job(request: Request) -> Response:
    """``GET /admin/jobs/{id}?errors=``: with the attempts at its calls so far and its first ``errors`` failed calls."""
    most = query_number(request.query_params, "errors", 20, 0, _MOST_ERRORS)
    store = job_services(request).store
    found = _or_not_found(await queries.job(store, _id(request), scope=None), request)
    attempts = await queries.attempts(store, found.id)
    failed = await queries.failed(store, found.id, limit=most)
    return json_response({**_job_json(found), "attempts": attempts, "errors": [_error_json(item) for item in failed]})


async def cancel(request: Request) -> Response:
    """``POST /admin/jobs/{id}/cancel``. Raises ``Conflict`` for a job that ended otherwise; a second time does no
    harm."""
    found, done = await lifecycle.cancel(job_services(request).queue, _id(request))
    found = _or_not_found(found, request)
    if not done and found.status not in (JobStatus.CANCELLING, JobStatus.CANCELLED):
        raise Conflict(f"Job {found.id} is {found.status}: it cannot be cancelled any more.")
    return json_response(_job_json(found))


async def retry(request: Request) -> Response:
    """``POST /admin/jobs/{id}/retry``. Raises ``Conflict`` for a job that is not over, or has nothing to be retried."""
    found = await lifecycle.retry(job_services(request).queue, _id(request))
    return json_response(_job_json(_or_not_found(found, request)))


async def switched_off(request: Request) -> Response:
    """Raises ``NotFound``."""
    raise NotFound("Jobs are switched off; LLMPROXY_JOBS=true switches them on.")


def _id(request: Request) -> str:
    return str(request.path_params["id"])


def _or_not_found(found: Job | None, request: Request) -> Job:
    if found is None:
        raise NotFound(f"No job has the id {_id(request)[:_LONGEST_ID]!r}.", param="id")
    return found


def _job_json(job: Job) -> dict[str, Any]:
    """What the operator sees of a job. Neither headers nor the webhook's URL: they may carry secrets."""
    return {
        "id": job.id,
        "kind": job.kind,
        "status": job.status,
        "path": job.path,
        "model": job.model,
        "caller": job.caller,
        "user": job.user_name,
        "session": job.session,
        "created_at": job.created_at,
        "started_at": job.started_at,
        "finished_at": job.finished_at,
        "expires_at": job.expires_at,
        "progress": {
            "total": job.total,
            "completed": job.completed,
            "failed": job.failed,
            "cancelled": job.cancelled,
            "expired": job.expired,
            "percent": round(100 * job.ended / job.total, 1) if job.total else 0.0,
        },
        "hits": job.hits,
        "tokens": {
            "prompt": job.prompt_tokens,
            "completion": job.completion_tokens,
            "cached": job.cached_tokens,
            "reasoning": job.reasoning_tokens,
        },
        "error": None if job.error is None else {"code": job.error.code, "message": job.error.message},
    }


def _error_json(item: Item) -> dict[str, Any]:
    return {
        "position": item.position,
        "label": item.label,
        "status_code": item.status_code,
        "attempts": item.attempts,
        "code": item.error.code if item.error else "",
        "message": item.error.message if item.error else "",
        "request_id": item.request_id,
    }
