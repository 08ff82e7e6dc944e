"""The call of a Response of the background: as a stream where it was asked for as one, its events kept as they come."""

import time
from dataclasses import replace
from time import perf_counter
from typing import Any

import orjson
from sqlalchemy.ext.asyncio import AsyncConnection

from llmproxy.jobs.answers import answers
from llmproxy.jobs.answers.answer import AnswerKind
from llmproxy.jobs.call import LOCAL, CallHandler, answered, exchange_for, tokens_of
from llmproxy.jobs.cancellation import CancelToken
from llmproxy.jobs.job import Claimed, Failure, ItemResult, Reschedule
from llmproxy.jobs.responses import events
from llmproxy.jobs.responses.event_log import EventLog
from llmproxy.jobs.responses.events import Event
from llmproxy.jobs.services import JobServices
from llmproxy.jobs.states import ItemStatus
from llmproxy.proxy.deliver import deliver
from llmproxy.proxy.listen import ClientDisconnected
from llmproxy.proxy.pipeline import handle, parse_request
from llmproxy.proxy.request import CacheableRequest
from llmproxy.proxy.response import Failed, Live
from llmproxy.wire.documents import Document, dump
from llmproxy.wire.echo import echoing
from llmproxy.wire.endpoints import BY_PATH
from llmproxy.wire.errors import ProxyError, UpstreamBroke
from llmproxy.wire.exchange import Exchange
from llmproxy.wire.formats.responses_request import response_error, unfinished
from llmproxy.wire.vocabulary import Reason

#: how long a Response can be asked for that was not to be stored, from its end on
UNSTORED_SECONDS = 600.0


class BackgroundCall:
    """The handler."""

    def __init__(self, services: JobServices) -> None:
        self._services = services
        self._call = CallHandler(services)

    async def __call__(self, item: Claimed, cancel_token: CancelToken) -> ItemResult | Reschedule:
        exchange = exchange_for(item, self._services)
        try:
            async with EventLog(self._services, item, cancel_token) as event_log:
                return await self._tried(item, exchange, event_log, cancel_token)
        except ClientDisconnected:
            exchange.status, exchange.error = 499, "the response was cancelled"
            return Reschedule(0.0, counts=False)
        except ProxyError as error:
            exchange.status, exchange.error = error.http_status, error.message
            raise
        finally:
            exchange.finished = perf_counter()
            self._services.count(exchange)

    async def _tried(
        self, item: Claimed, exchange: Exchange, event_log: EventLog, cancel_token: CancelToken
    ) -> ItemResult | Reschedule:
        try:
            cacheable = await self._asked(exchange, item)
            if cacheable.parsed.stream:
                document = await self._streamed(exchange, cacheable, event_log, cancel_token)
            else:
                whole = await answered(exchange, cacheable, self._services.proxy, cancel_token)
                if exchange.stored in (Reason.MALFORMED, Reason.STATUS):
                    raise UpstreamBroke("The model server gave something else in the place of a Response.")
                document = echoing(orjson.loads(whole.body), cacheable.parsed.echo or {})
        except ProxyError as error:
            exchange.status, exchange.error = error.http_status, error.message
            return await self._after(item, error, exchange, event_log)
        return await self._done(item, document, exchange, event_log)

    async def _asked(self, exchange: Exchange, item: Claimed) -> CacheableRequest:
        job = item.job
        cacheable = await parse_request(
            exchange, BY_PATH[job.path], item.body, job.path.encode(), job.headers, LOCAL, self._services.proxy
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

    async def _streamed(
        self, exchange: Exchange, cacheable: CacheableRequest, event_log: EventLog, cancel_token: CancelToken
    ) -> Document:
        answer = await handle(exchange, cacheable, self._services.proxy, cancel_token)
        await deliver(answer, exchange, cancel_token, event_log.send, 0)
        if isinstance(answer, Live) and isinstance(answer.flight.work.outcome, Failed):
            raise answer.flight.work.outcome.error
        response = (event_log.terminal or {}).get("response")
        if not isinstance(response, dict):
            raise UpstreamBroke(exchange.error or "The upstream's stream holds no finished response.")
        return response

    async def _done(self, item: Claimed, document: Document, exchange: Exchange, event_log: EventLog) -> ItemResult:
        """The result for an answer of the upstream, which may say itself that it failed."""
        if document.get("status") == "completed":
            # the answer may be older than the question
            document = document | {"completed_at": int(time.time())}
        body = dump(document)
        error = document.get("error")
        failure = None
        if document.get("status") in ("failed", "cancelled"):
            told: dict[str, Any] = error if isinstance(error, dict) else {}
            failure = Failure(str(told.get("code") or "server_error"), str(told.get("message") or "It failed."))
        result = ItemResult(
            ItemStatus.COMPLETED if failure is None else ItemStatus.FAILED,
            200,
            error=failure,
            request_id=exchange.request_id,
            cache=exchange.cache or "",
            seconds=perf_counter() - exchange.started,
            tokens=tokens_of(body),
        )
        return await self._ended(item, result, document, event_log)

    async def _after(
        self, item: Claimed, error: ProxyError, exchange: Exchange, event_log: EventLog
    ) -> ItemResult | Reschedule:
        """What follows from a failed try: another one, or a Response that says why there is none."""
        what = self._call.after(item, error, exchange)
        if isinstance(what, Reschedule):
            return what
        job = item.job
        answer = await self._services.answers.find(job.id, AnswerKind.RESPONSE, job.scope)
        request = {} if answer is None else orjson.loads(answer.request)
        document = unfinished(job.id, job.created_at, "failed", request, response_error(error))
        return await self._ended(item, what, document, event_log)

    async def _ended(self, item: Claimed, result: ItemResult, document: Document, event_log: EventLog) -> ItemResult:
        """``result``, which makes the Response and its last events count together with it."""
        job = item.job
        group: list[Event] = []
        if job.detail["stream"]:
            group = [*await event_log.rest(), event_log.closing(document)]
        expires_at = None if job.detail["store"] else time.time() + UNSTORED_SECONDS

        async def also(connection: AsyncConnection) -> None:
            await events.put(connection, job.id, group)
            await answers.complete(connection, job.id, dump(document), expires_at)

        return replace(result, also=also)
