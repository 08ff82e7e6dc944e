"""The events of one try at a Response, on their way into the database: in groups, so that each costs little."""

import asyncio
from contextlib import suppress
from types import TracebackType
from typing import Any, Self

from starlette.types import Message

from llmproxy.jobs.cancellation import CancelToken
from llmproxy.jobs.job import Claimed
from llmproxy.jobs.responses import events
from llmproxy.jobs.responses.events import OPENING, Event
from llmproxy.jobs.services import JobServices
from llmproxy.wire.documents import dump, read_leniently
from llmproxy.wire.formats.responses import RESPONSES
from llmproxy.wire.framing import SseSplitter, sse_data, sse_frame

#: seconds that an event waits for others at most
_LINGER_SECONDS = 0.1
#: bytes that wait before the upstream's answer has to
_MOST_BYTES = 1024 * 1024

#: what was told when the Response was accepted
_TOLD = frozenset({"response.created", "response.queued"})


class EventLog:
    """Takes the messages of an ASGI response and numbers their events from ``OPENING`` on.

    The terminal event is held back: it counts together with the Response itself.
    """

    def __init__(self, services: JobServices, item: Claimed, cancel_token: CancelToken) -> None:
        self._services = services
        self._item = item
        self._cancel_token = cancel_token
        self._splitter = SseSplitter()
        self._waiting: list[Event] = []
        self._bytes = 0
        self._number = OPENING
        self._writing = asyncio.Lock()
        self._hurry = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        #: the last event, once it came
        self.terminal: dict[str, Any] | None = None

    async def __aenter__(self) -> Self:
        if self._item.claims > 1 and not await events.restart(self._services.store, self._item):
            self._cancel_token.leave()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._task is not None:
            self._task.cancel()
            # what went wrong in it is told by ``send`` and ``rest``, if anybody still asks
            await asyncio.gather(self._task, return_exceptions=True)

    async def send(self, message: Message) -> None:
        """Takes one message. Raises ``Unavailable`` where the database cannot be used."""
        for frame in self._splitter.feed(bytes(message.get("body", b""))):
            self._take(frame)
        if self._bytes > _MOST_BYTES:
            await self._flush()
        elif self._waiting and (self._task is None or self._task.done()):
            if self._task is not None:
                # it raises here what went wrong there
                self._task.result()
            self._task = asyncio.create_task(self._flush_soon(), name="response events")

    async def rest(self) -> list[Event]:
        """What is not written yet. Raises ``Unavailable``."""
        if self._task is not None:
            self._hurry.set()
            await self._task
        return self._waiting

    def closing(self, document: dict[str, Any]) -> Event:
        """The terminal event, with this as the Response in it."""
        event = self.terminal or {"type": "response.failed"}
        return self._numbered({**event, "response": document})

    def _take(self, frame: bytes) -> None:
        if RESPONSES.fault(frame) is not None:
            # this try's own failure; what it means for the Response is decided later
            return
        event = read_leniently(sse_data(frame))
        if event is None:
            return
        # padding against those who count bytes on the way from there; whoever asks for the events again is near
        event.pop("obfuscation", None)
        if RESPONSES.terminal(frame):
            self.terminal = event
        elif event.get("type") not in _TOLD:
            self._waiting.append(self._numbered(event))
            self._bytes += len(frame)

    def _numbered(self, event: dict[str, Any]) -> Event:
        number = self._number
        self._number += 1
        name = str(event.get("type", "")).encode()
        return number, sse_frame(dump(event | {"sequence_number": number}), name)

    async def _flush_soon(self) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(_LINGER_SECONDS):
                await self._hurry.wait()
        await self._flush()

    async def _flush(self) -> None:
        async with self._writing:
            group, self._waiting, self._bytes = self._waiting, [], 0
            if not group:
                return
            if not await events.add(self._services.store, self._item, group):
                # somebody else has the call, or nobody wants it any more
                self._cancel_token.leave()
        self._services.changes.moved(self._item.job.id)
