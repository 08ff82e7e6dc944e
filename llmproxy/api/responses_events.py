"""A Response's events as they are sent to one client: the stored ones, then new ones."""

import asyncio
from collections.abc import Sequence

from starlette.types import Send

from llmproxy.api.event_stream import SseStream
from llmproxy.api.responses_model import response_object
from llmproxy.api.services import JobServices
from llmproxy.jobs import queries
from llmproxy.jobs.model import Event, Job, JobKind, JobStatus
from llmproxy.jobs.response_events import OPENING, is_terminal, last_event, read_events, was_restarted
from llmproxy.jobs.stored_model import AnswerKind, StoredAnswer
from llmproxy.proxy.listen import Client
from llmproxy.proxy.response import type_headers
from llmproxy.wire.errors import ProxyError
from llmproxy.wire.formats.responses import RESPONSES, EventWriter

_STOPPING = "The proxy is shutting down; the response goes on after it."
#: between two looks at the rows: the work may be done by another process
_POLL_SECONDS = 0.3
#: events read at a time
_PAGE = 500

#: how a job stands that has ended by itself, with a terminal event of its own
_OF_ITSELF = (JobStatus.COMPLETED, JobStatus.FAILED)


class EventReplay:
    """The stream of one client. ``after`` is the number of the last event that it has, -1 for none.

    A Response may be run again, when its worker died or its upstream failed; its events then get the same numbers
    once more. A client in the middle continues from there, and gets the terminal event in any case.
    """

    def __init__(self, answer: StoredAnswer, after: int, services: JobServices, client: Client, send: Send) -> None:
        self._answer = answer
        self._last = after
        self._services = services
        self._stream = SseStream(answer.id, _POLL_SECONDS, services, client, send)
        self._send = send

    async def run(self) -> None:
        """The whole ASGI response. Raises ``ClientLeft``."""
        self._stream.watch()
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
        """Sends events until the terminal one is there, which it returns."""
        id, store = self._answer.id, self._services.store
        while True:
            # first: when it is over, every event is there
            job = await queries.job(store, id, JobKind.RESPONSE, self._answer.scope)
            group = await read_events(store, id, self._last, _PAGE)
            if group and is_terminal(group[-1][1]):
                if job is None or job.status in _OF_ITSELF:
                    return _frames(group)
                # an earlier run's, which was begun anew since; or it came just now, and counts at the next look
                group = [event for event in group if event[0] < OPENING]
            if group:
                self._last = group[-1][0]
                await self._stream.send(_frames(group))
            elif job is None or job.status.over:
                return await self._ending(job)
            self._stream.raise_if_disconnected()
            if self._stream.stopping:
                # it goes on, but not here: the stream must not look as if it had come to its end
                return _failure(_STOPPING)
            if not group:
                await self._stream.poll()

    async def _ending(self, job: Job | None) -> bytes:
        """The terminal event if the client does not have it yet; it is made here if the job was ended from outside."""
        number, frame = await last_event(self._services.store, self._answer.id) or (-1, b"")
        if not is_terminal(frame) or (job is not None and job.status not in _OF_ITSELF):
            answer = await self._services.answers.find(self._answer.id, AnswerKind.RESPONSE, self._answer.scope)
            if answer is None:
                return _failure("The response was deleted.")
            number, frame = _ending_event(answer, number + 1)
        again = await was_restarted(self._services.store, self._answer.id)
        return frame if number > self._last or again else b""


def _frames(group: Sequence[Event]) -> bytes:
    return b"".join(frame for _, frame in group)


def _ending_event(answer: StoredAnswer, number: int) -> Event:
    return number, EventWriter(number).ending(response_object(answer))


def _failure(message: str) -> bytes:
    return RESPONSES.failure(ProxyError(message, code="server_error"))
