"""Tasks as their callers see them: the list, one with its results, and the end of one."""

import re

from starlette.requests import HTTPConnection, Request
from starlette.responses import Response

from llmproxy.jobs import lifecycle, queries
from llmproxy.jobs.job import Job
from llmproxy.jobs.json_response import rendered
from llmproxy.jobs.queries import JobQuery
from llmproxy.jobs.services import JobServices, exchange_of, job_services
from llmproxy.jobs.states import JobKind, JobStatus
from llmproxy.jobs.tasks import serialize
from llmproxy.jobs.tasks.order import LONGEST_NAME
from llmproxy.wire.errors import BadRequest, Conflict, NotFound
from llmproxy.wire.validation import query_limit, query_number, query_word

#: those that a task can have
STATUSES = (JobStatus.PENDING, JobStatus.RUNNING, JobStatus.COMPLETED, JobStatus.FAILED, JobStatus.CANCELLED)

_MOST_RESULTS, _USUAL_RESULTS = 1000, 100
_ID = re.compile("task_[0-9a-f]{32}")


async def tasks(request: Request) -> Response:
    """``GET /api/tasks?status=&user_id=&limit=&cursor=``, newest first; ``next`` is the next page's cursor."""
    query = request.query_params
    status = query_word(query, "status", STATUSES)
    user, cursor = query.get("user_id"), query.get("cursor")
    if user is not None and (len(user) > LONGEST_NAME or not user.isprintable()):
        raise BadRequest(f"'user_id' has up to {LONGEST_NAME} printable characters.", param="user_id")
    if cursor is not None and not _ID.fullmatch(cursor):
        raise BadRequest("'cursor' must be the 'next' of the page before.", param="cursor")
    wanted = JobQuery(
        kind=JobKind.TASK,
        scope=exchange_of(request).caller.owner,
        status=JobStatus(status) if status is not None else None,
        user=user,
        after=cursor,
        limit=query_limit(query),
    )
    page, more = await queries.page(job_services(request).store, wanted)
    data = [serialize.task(job) for job in page]
    return rendered({"object": "list", "data": data, "next": page[-1].id if more else None})


async def task(request: Request) -> Response:
    """``GET /api/tasks/{id}?limit=&cursor=``: with results in the order of the prompts; ``next`` is the next page's
    cursor, the index of the last one."""
    limit = query_limit(request.query_params, _USUAL_RESULTS, _MOST_RESULTS)
    after = query_number(request.query_params, "cursor", -1, 0)
    return await _whole(await found(request), job_services(request), after, limit)


async def cancel(request: Request) -> Response:
    """``DELETE /api/tasks/{id}``: ends it, calls in flight included; once more does no harm. Raises ``Conflict``."""
    services, known = job_services(request), await found(request)
    job, done = await lifecycle.cancel(services.queue, known.id)
    if job is None:
        raise _unknown(known.id)
    if not done and job.status is not JobStatus.CANCELLED:
        raise Conflict(f"Task {job.id} is {job.status}: it cannot be cancelled any more.")
    return await _whole(job, services, -1, _USUAL_RESULTS)


async def found(connection: HTTPConnection) -> Job:
    """The task that the path names. Raises ``NotFound``, also for one of another caller's scope."""
    id, scope = connection.path_params["id"], exchange_of(connection).caller.owner
    job = await queries.job(job_services(connection).store, id, JobKind.TASK, scope) if _ID.fullmatch(id) else None
    if job is None:
        raise _unknown(id)
    return job


async def _whole(job: Job, services: JobServices, after: int, limit: int) -> Response:
    items = await queries.calls(services.store, job.id, after=after, limit=limit)
    results = [serialize.result(item) for item in items]
    document = {
        **serialize.task(job),
        "attempts": await queries.attempts(services.store, job.id),
        "results": results,
        "next": items[-1].position if items and items[-1].position + 1 < job.total else None,
    }
    if job.detail.get("single"):
        document["result"] = results[0] if results else None
    return rendered(document)


def _unknown(id: str) -> NotFound:
    return NotFound(f"No task found with id '{id[:100]}'.")
