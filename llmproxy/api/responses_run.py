"""The call of a Response of the background: as a stream if it was asked for as one, its events kept as they come."""

import asyncio
import time
from contextlib import suppress
from dataclasses import replace
from time import perf_counter
from types import TracebackType
from typing import Any, Self

import orjson
from starlette.types import Message

from llmproxy.jobs.call import LOCAL, CallHandler, fetch_answer, token_usage
from llmproxy.jobs.handler import CancelToken
from llmproxy.jobs.model import Claimed, Completion, Event, Failure, ItemResult, ItemStatus, Reschedule
from llmproxy.jobs.queue import Queue
from llmproxy.jobs.response_events import OPENING, add_events, restart_events
from llmproxy.jobs.stored import StoredAnswers
from llmproxy.jobs.stored_model import AnswerKind
from llmproxy.proxy.deliver import deliver
from llmproxy.proxy.listen import ClientDisconnected
from llmproxy.proxy.pipeline import handle, parse_request
from llmproxy.proxy.request import CacheableRequest
from llmproxy.proxy.response import Failed, Live
from llmproxy.proxy.services import ProxyServices
from llmproxy.wire.documents import Document, dump, read_leniently
from llmproxy.wire.echo import with_echo
from llmproxy.wire.endpoints import BY_PATH
from llmproxy.wire.errors import ProxyError, UpstreamBroke
from llmproxy.wire.exchange import Exchange
from llmproxy.wire.formats.responses import RESPONSES
from llmproxy.wire.formats.responses_request import response_error, unfinished
from llmproxy.wire.framing import SseSplitter, sse_data, sse_frame
from llmproxy.wire.vocabulary import Reason

#: seconds that an event waits for others at most
_LINGER_SECONDS = 0.1
#: bytes that wait before the upstream's answer has to
_MOST_BYTES = 1024 * 1024

#: events that were stored when the Response was accepted
_OPENING_TYPES = frozenset({"response.created", "response.queued"})


class EventLog:
    """Takes the messages of an ASGI response and numbers their events from ``OPENING`` on.

    The terminal event is held back: it counts together with the Response itself.
    """

    def __init__(self, queue: Queue, item: Claimed, cancel_token: CancelToken) -> None:
        self._queue = queue
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
        if self._item.claims > 1 and not await restart_events(self._queue.store, self._item):
            self._cancel_token.leave()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._task is not None:
            self._task.cancel()
            # ``send`` and ``flush_rest`` raise what went wrong in it, if they are still called
            await asyncio.gather(self._task, return_exceptions=True)

    async def send(self, message: Message) -> None:
        """Takes one message. Raises ``Unavailable`` if the database cannot be used."""
        for frame in self._splitter.feed(bytes(message.get("body", b""))):
            self._take(frame)
        if self._bytes > _MOST_BYTES:
            await self._flush()
        elif self._waiting and (self._task is None or self._task.done()):
            if self._task is not None:
                # it raises here what went wrong there
                self._task.result()
            self._task = asyncio.create_task(self._flush_soon(), name="response events")

    async def flush_rest(self) -> list[Event]:
        """Returns what is not written yet. Raises ``Unavailable``."""
        if self._task is not None:
            self._hurry.set()
            await self._task
        return self._waiting

    def terminal_event(self, document: dict[str, Any]) -> Event:
        """The terminal event, with this as the Response in it."""
        event = self.terminal or {"type": "response.failed"}
        return self._number_event({**event, "response": document})

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
        elif event.get("type") not in _OPENING_TYPES:
            self._waiting.append(self._number_event(event))
            self._bytes += len(frame)

    def _number_event(self, event: dict[str, Any]) -> Event:
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
            if not await add_events(self._queue.store, self._item, group):
                # somebody else has the call, or nobody wants it any more
                self._cancel_token.leave()
        self._queue.notifications.job_changed(self._item.job.id)


#: how long a Response that is not to be stored can be read after its end
UNSTORED_SECONDS = 600.0


class BackgroundCall:
    """The handler."""

    def __init__(self, call: CallHandler, services: ProxyServices, queue: Queue, answers: StoredAnswers) -> None:
        self._call = call
        self._services = services
        self._queue = queue
        self._answers = answers

    async def __call__(self, item: Claimed, cancel_token: CancelToken) -> ItemResult | Reschedule:
        exchange = self._call.begin(item)
        try:
            async with EventLog(self._queue, item, cancel_token) as event_log:
                return await self._attempt(item, exchange, event_log, cancel_token)
        except ClientDisconnected:
            exchange.status, exchange.error = 499, "the response was cancelled"
            return Reschedule(0.0, counts=False)
        except ProxyError as error:
            exchange.status, exchange.error = error.http_status, error.message
            raise
        finally:
            self._call.end(exchange)

    async def _attempt(
        self, item: Claimed, exchange: Exchange, event_log: EventLog, cancel_token: CancelToken
    ) -> ItemResult | Reschedule:
        try:
            cacheable = await self._parse(exchange, item)
            if cacheable.parsed.stream:
                document = await self._stream(exchange, cacheable, event_log, cancel_token)
            else:
                whole = await fetch_answer(exchange, cacheable, self._services, cancel_token)
                if exchange.stored in (Reason.MALFORMED, Reason.STATUS):
                    raise UpstreamBroke("The model server gave something else in the place of a Response.")
                document = with_echo(orjson.loads(whole.body), cacheable.parsed.echo or {})
        except ProxyError as error:
            exchange.status, exchange.error = error.http_status, error.message
            return await self._retry_or_fail(item, error, exchange, event_log)
        return await self._result(item, document, exchange, event_log)

    async def _parse(self, exchange: Exchange, item: Claimed) -> CacheableRequest:
        job = item.job
        cacheable = await parse_request(
            exchange, BY_PATH[job.path], item.body, job.path.encode(), job.headers, LOCAL, self._services
        )
        own = {
            "id": job.id,
            "created_at": int(job.created_at),
            "background": True,
            "store": job.detail["store"],
            "previous_response_id": job.detail["previous_response_id"],
        }
        echo = {**(cacheable.parsed.echo or {}), **own}
        return replace(
            cacheable,
            parsed=replace(cacheable.parsed, echo=echo),
            directives=replace(cacheable.directives, paced=False),
        )

    async def _stream(
        self, exchange: Exchange, cacheable: CacheableRequest, event_log: EventLog, cancel_token: CancelToken
    ) -> Document:
        answer = await handle(exchange, cacheable, self._services, cancel_token)
        await deliver(answer, exchange, cancel_token, event_log.send, 0)
        if isinstance(answer, Live) and isinstance(answer.flight.work.outcome, Failed):
            raise answer.flight.work.outcome.error
        response = (event_log.terminal or {}).get("response")
        if not isinstance(response, dict):
            raise UpstreamBroke(exchange.error or "The upstream's stream holds no finished response.")
        return response

    async def _result(self, item: Claimed, document: Document, exchange: Exchange, event_log: EventLog) -> ItemResult:
        """The result for an answer of the upstream, which may say itself that it failed."""
        if document.get("status") == "completed":
            # the answer may be older than the question
            document = document | {"completed_at": int(time.time())}
        body = dump(document)
        error = document.get("error")
        failure = None
        if document.get("status") in ("failed", "cancelled"):
            details: dict[str, Any] = error if isinstance(error, dict) else {}
            failure = Failure(str(details.get("code") or "server_error"), str(details.get("message") or "It failed."))
        result = ItemResult(
            ItemStatus.COMPLETED if failure is None else ItemStatus.FAILED,
            200,
            error=failure,
            request_id=exchange.request_id,
            cache=exchange.cache or "",
            seconds=perf_counter() - exchange.started,
            tokens=token_usage(body),
        )
        return await self._with_completion(item, result, document, event_log)

    async def _retry_or_fail(
        self, item: Claimed, error: ProxyError, exchange: Exchange, event_log: EventLog
    ) -> ItemResult | Reschedule:
        """What follows from a failed try: another one, or a Response that says why there is none."""
        outcome = self._call.retry_or_fail(item, error, exchange)
        if isinstance(outcome, Reschedule):
            return outcome
        job = item.job
        answer = await self._answers.find(job.id, AnswerKind.RESPONSE, job.scope)
        request = {} if answer is None else orjson.loads(answer.request)
        document = unfinished(job.id, job.created_at, "failed", request, response_error(error))
        return await self._with_completion(item, outcome, document, event_log)

    async def _with_completion(
        self, item: Claimed, result: ItemResult, document: Document, event_log: EventLog
    ) -> ItemResult:
        """``result``, which makes the Response and its last events count together with it."""
        job = item.job
        group: list[Event] = []
        if job.detail["stream"]:
            group = [*await event_log.flush_rest(), event_log.terminal_event(document)]
        expires_at = None if job.detail["store"] else time.time() + UNSTORED_SECONDS

        return replace(result, move=Completion(dump(document), expires_at, group))
