"""The events of a Response of the background, one row each: written while they come, told to whoever follows."""

import asyncio
from collections.abc import Sequence

from sqlalchemy import delete, insert, select
from sqlalchemy.ext.asyncio import AsyncConnection
from starlette.types import Send

from llmproxy.api.event_stream import SseStream
from llmproxy.api.responses_model import document_of
from llmproxy.api.services import JobServices
from llmproxy.jobs import queries
from llmproxy.jobs.leases import RUNNING
from llmproxy.jobs.model import Claimed, Job, JobKind, JobStatus, Step
from llmproxy.jobs.store import Store
from llmproxy.jobs.stored_model import AnswerKind, StoredAnswer
from llmproxy.jobs.tables import events, items
from llmproxy.proxy.listen import Client
from llmproxy.proxy.response import type_headers
from llmproxy.wire.errors import ProxyError
from llmproxy.wire.formats.responses import RESPONSES, EventWriter
from llmproxy.wire.framing import sse_event

#: the first events, there as soon as the Response is accepted: ``response.created`` and ``response.queued``
OPENING = 2

#: number and frame
Event = tuple[int, bytes]

_TERMINAL = frozenset({b"response.completed", b"response.incomplete", b"response.failed"})


def is_terminal(frame: bytes) -> bool:
    """Whether a frame, as it is kept here, ends its stream."""
    return sse_event(frame) in _TERMINAL


async def put_events(connection: AsyncConnection, response_id: str, group: Sequence[Event]) -> None:
    """Adds events in the caller's transaction."""
    if group:
        rows = [{"response_id": response_id, "number": number, "frame": frame} for number, frame in group]
        await connection.execute(insert(events), rows)


async def add_events(store: Store, item: Claimed, group: Sequence[Event]) -> bool:
    """Adds events of the call that ``item`` is. False, and nothing is added, if the lease was lost."""

    async def work(connection: AsyncConnection) -> bool:
        if not await _is_held(connection, item):
            return False
        await put_events(connection, item.job.id, group)
        return True

    return await store.write(work, durable=False)


async def restart_events(store: Store, item: Claimed) -> bool:
    """Deletes what an earlier try has left of the events. False if the lease was lost."""

    async def work(connection: AsyncConnection) -> bool:
        if not await _is_held(connection, item):
            return False
        old = (events.c.response_id == item.job.id, events.c.number >= OPENING)
        await connection.execute(delete(events).where(*old))
        return True

    return await store.write(work, durable=False)


async def _is_held(connection: AsyncConnection, item: Claimed) -> bool:
    """The number of a claim is given once. Locked, so that it stays so until the transaction ends."""
    held = select(items.c.id).where(items.c.id == item.id, items.c.claims == item.claims, RUNNING).with_for_update()
    return (await connection.execute(held)).first() is not None


async def read_events(store: Store, response_id: str, after: int, limit: int) -> list[Event]:
    """The events with a number above ``after``, in order."""
    query = (
        select(events.c.number, events.c.frame)
        .where(events.c.response_id == response_id, events.c.number > after)
        .order_by(events.c.number)
        .limit(limit)
    )

    async def work(connection: AsyncConnection) -> list[Event]:
        return [(number, frame) for number, frame in (await connection.execute(query)).all()]

    return await store.read(work)


async def last_event(store: Store, response_id: str) -> Event | None:
    """The event with the highest number."""
    query = (
        select(events.c.number, events.c.frame)
        .where(events.c.response_id == response_id)
        .order_by(events.c.number.desc())
        .limit(1)
    )

    async def work(connection: AsyncConnection) -> Event | None:
        row = (await connection.execute(query)).first()
        return None if row is None else (row.number, row.frame)

    return await store.read(work)


async def was_restarted(store: Store, response_id: str) -> bool:
    """Whether its events may have begun anew, with numbers that were given before."""
    claims = select(items.c.claims).where(items.c.job_id == response_id, items.c.step == Step.CALL)

    async def work(connection: AsyncConnection) -> bool:
        return ((await connection.execute(claims)).scalar() or 0) > 1

    return await store.read(work)


_STOPPING = "The proxy is shutting down; the response goes on after it."
#: between two looks at the rows: the work may be done by another process
_POLL_SECONDS = 0.3
#: events read at a time
_PAGE = 500

#: how a job stands that has ended by itself, with a terminal event of its own
_OF_ITSELF = (JobStatus.COMPLETED, JobStatus.FAILED)


class Following:
    """One client's way through a stream. ``after`` is the number of the last event that it knows, -1 for none.

    A Response may be run again, when its worker died or its upstream failed; its events then get the same numbers
    once more. Who is in the middle goes on from there, and is told the end in any case.
    """

    def __init__(self, answer: StoredAnswer, after: int, services: JobServices, client: Client, send: Send) -> None:
        self._answer = answer
        self._known = after
        self._services = services
        self._telling = SseStream(answer.id, _POLL_SECONDS, services, client, send)
        self._send = send

    async def run(self) -> None:
        """The whole ASGI response. Raises ``ClientLeft``."""
        self._telling.watch()
        headers = type_headers(RESPONSES.stream_type, stream=True)
        await self._send({"type": "http.response.start", "status": 200, "headers": headers})
        try:
            last = await self._events()
        except ProxyError as error:
            last = _failure(error.message)
        except asyncio.CancelledError:
            await self._send({"type": "http.response.body", "body": _failure(_STOPPING)})
            raise
        await self._send({"type": "http.response.body", "body": last})

    async def _events(self) -> bytes:
        """Sends what comes until the end is there, which it returns."""
        id, store = self._answer.id, self._services.store
        while True:
            # first: when it is over, every event is there
            job = await queries.job(store, id, JobKind.RESPONSE, self._answer.scope)
            group = await read_events(store, id, self._known, _PAGE)
            if group and is_terminal(group[-1][1]):
                if job is None or job.status in _OF_ITSELF:
                    return _frames(group)
                # an earlier run's, which was begun anew since; or it came just now, and counts at the next look
                group = [event for event in group if event[0] < OPENING]
            if group:
                self._known = group[-1][0]
                await self._telling.say(_frames(group))
            elif job is None or job.status.over:
                return await self._ending(job)
            self._telling.check()
            if self._telling.stopping:
                # it goes on, but not here: the stream must not look as if it had come to its end
                return _failure(_STOPPING)
            if not group:
                await self._telling.pause()

    async def _ending(self, job: Job | None) -> bytes:
        """The terminal event where the client does not know it yet, made up where the job was ended from outside."""
        number, frame = await last_event(self._services.store, self._answer.id) or (-1, b"")
        if not is_terminal(frame) or (job is not None and job.status not in _OF_ITSELF):
            answer = await self._services.answers.find(self._answer.id, AnswerKind.RESPONSE, self._answer.scope)
            if answer is None:
                return _failure("The response was deleted.")
            number, frame = _made_up(answer, number + 1)
        again = await was_restarted(self._services.store, self._answer.id)
        return frame if number > self._known or again else b""


def _frames(group: Sequence[Event]) -> bytes:
    return b"".join(frame for _, frame in group)


def _made_up(answer: StoredAnswer, number: int) -> Event:
    return number, EventWriter(number).ending(document_of(answer))


def _failure(message: str) -> bytes:
    return RESPONSES.failure(ProxyError(message, code="server_error"))
