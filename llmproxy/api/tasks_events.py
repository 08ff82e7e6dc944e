"""``GET /api/tasks/{id}/events``: what happens to a task, as server-sent events.

The events are derived from the rows, so that there is nothing to store and every process can tell them: number 1 says
that the task was accepted, 2 that it runs, 2+k is the k-th result, 3+total the end. Who comes back with
``Last-Event-ID``, as browsers do by themselves, gets those that came after it.
"""

import re
from collections.abc import Iterator

import orjson
from starlette.requests import HTTPConnection
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from llmproxy.api import tasks_model
from llmproxy.api.event_stream import SseStream
from llmproxy.api.services import JobServices, job_services
from llmproxy.api.tasks import load_task
from llmproxy.jobs import queries
from llmproxy.jobs.model import Job, JobStatus
from llmproxy.proxy.endpoint import Listening
from llmproxy.proxy.listen import Client
from llmproxy.wire.errors import BadRequest, Unavailable
from llmproxy.wire.framing import sse_frame

_HEADERS = [
    (b"content-type", b"text/event-stream"),
    (b"cache-control", b"no-cache"),
    (b"x-accel-buffering", b"no"),
]
#: milliseconds after which a browser that was cut off comes back
_RETRY = b"retry: 1000\n\n"
#: between two looks at the rows: the work may be done by another process
_POLL_SECONDS = 0.5
#: results read at a time
_PAGE = 100

_PENDING, _RUNNING = 1, 2
#: number of the event before the first result
_BASE = 2


class Events:
    """An ASGI application."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        connection = HTTPConnection(scope)
        last = _last(connection)
        job = await load_task(connection)
        if last > _BASE + job.total:
            # the client has the end: this status makes a browser stop asking
            await Response(status_code=204)(scope, receive, send)
            return
        with Listening(scope, receive) as client:
            await send({"type": "http.response.start", "status": 200, "headers": _HEADERS})
            try:
                if scope["method"] != "HEAD":
                    await _Progress(job, last, job_services(connection), client, send).run()
            finally:
                # also when the server stops: the end was not sent, so the client comes back
                await send({"type": "http.response.body", "body": b""})


events = Events()


class _Progress:
    """The stream of one client. ``last`` is the number of the last event that it has."""

    def __init__(self, job: Job, last: int, services: JobServices, client: Client, send: Send) -> None:
        self._id = job.id
        self._last = last
        self._store = services.store
        self._stream = SseStream(job.id, _POLL_SECONDS, services, client, send)

    async def run(self) -> None:
        """Sends events until the task's end is sent, the task is deleted, or the server stops. Raises
        ``ClientLeft``."""
        self._stream.watch()
        await self._stream.send(_RETRY)
        more = over = False
        while more or not over:
            try:
                job = await queries.job(self._store, self._id, scope=None)
                more = job is not None and await self._send_new(job)
                over = job is None or job.status.over
            except Unavailable:
                # once the database is back, its rows still say what happened
                more = over = False
            self._stream.raise_if_disconnected()
            if self._stream.stopping:
                return
            if not more and not over:
                await self._stream.poll()

    async def _send_new(self, job: Job) -> bool:
        """Sends what is new, or the first of it. Returns whether there is more."""
        frames = list(self._first_events(job))
        sent = max(0, self._last - _BASE)
        items = []
        if job.completed + job.failed > sent:
            items = await queries.ended(self._store, job.id, after=sent, limit=_PAGE)
        for item in items:
            assert item.ended is not None, "only those were asked for"
            happened = _happened(job, item.finished_at, item.ended)
            frames.append(self._frame(_BASE + item.ended, "result", happened | tasks_model.result(item)))
        if job.status.over and len(items) < _PAGE and self._last <= _BASE + job.total:
            end = _happened(job, job.finished_at, job.ended) | {
                "status": job.status,
                "progress": tasks_model.progress(job),
            }
            frames.append(self._frame(_BASE + 1 + job.total, "status", end))
        if frames:
            await self._stream.send(b"".join(frames))
        return len(items) == _PAGE

    def _first_events(self, job: Job) -> Iterator[bytes]:
        if self._last < _PENDING:
            yield self._frame(_PENDING, "status", _happened(job, job.created_at, 0) | {"status": JobStatus.PENDING})
        if self._last < _RUNNING and job.started_at is not None:
            yield self._frame(_RUNNING, "status", _happened(job, job.started_at, 0) | {"status": JobStatus.RUNNING})

    def _frame(self, number: int, name: str, document: tasks_model.Document) -> bytes:
        self._last = number
        return b"id: %d\n" % number + sse_frame(orjson.dumps(document), name.encode())


def _happened(job: Job, at: float | None, ended: int) -> tasks_model.Document:
    """The members of all events: the task, the time, and how many prompts were over by then."""
    return {"task_id": job.id, "at": at, "percent": tasks_model.percent(ended, job.total)}


def _last(connection: HTTPConnection) -> int:
    text = connection.headers.get("last-event-id", "") or "0"
    if not re.fullmatch("[0-9]{1,10}", text):
        raise BadRequest("Last-Event-ID must be the id of an event of this stream.", param="Last-Event-ID")
    return int(text)
