"""The handler of a job's call: it takes a request through the pipeline without a socket, and the exchange is recorded
and counted like any other."""

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from time import perf_counter
from typing import Any

from starlette.types import Message

from llmproxy.jobs.handler import CancelToken
from llmproxy.jobs.model import Claimed, Failure, ItemResult, ItemStatus, Reschedule, TokenUsage
from llmproxy.jobs.retry import RetryDecision, decide, pause_after
from llmproxy.proxy.deliver import deliver
from llmproxy.proxy.listen import Client, ClientDisconnected, StreamAborted
from llmproxy.proxy.pipeline import handle, parse_request
from llmproxy.proxy.request import CacheableRequest
from llmproxy.proxy.services import ProxyServices
from llmproxy.upstream.headers import Peer
from llmproxy.wire.documents import peek
from llmproxy.wire.endpoints import BY_PATH
from llmproxy.wire.errors import ProxyError, UpstreamBroke, UpstreamError, UpstreamStatus
from llmproxy.wire.exchange import Caller, Exchange, RequestIds
from llmproxy.wire.headers import HeaderList, fingerprint
from llmproxy.wire.vocabulary import Reason

#: the address of a job's calls, as the model server sees it
LOCAL = Peer("127.0.0.1")

#: what is not an answer although it was not sent as an error
NO_ANSWERS = frozenset({Reason.ERROR, Reason.MALFORMED, Reason.STATUS})

#: pause before a model server that was absent is tried again
_ABSENT_SECONDS = 2.0


@dataclass(frozen=True, slots=True)
class CallAnswer:
    """A whole answer."""

    status: int
    headers: HeaderList
    body: bytes


async def fetch_answer(
    exchange: Exchange, request: CacheableRequest, services: ProxyServices, client: Client
) -> CallAnswer:
    """The whole answer to a request that asks for no stream. Raises ``ProxyError``, ``ClientDisconnected``."""
    status, headers, pieces = 0, [], []

    async def collect(message: Message) -> None:
        nonlocal status, headers
        if message["type"] == "http.response.start":
            status, headers = message["status"], message["headers"]
        else:
            pieces.append(message.get("body", b""))

    if request.parsed.stream:
        # a model server may read a member of another case as the wish for a stream; nobody watches it arrive
        request = replace(request, directives=replace(request.directives, paced=False))
    answer = await handle(exchange, request, services, client)
    try:
        await deliver(answer, exchange, client, collect, 0)
    except StreamAborted as broken:
        raise UpstreamBroke(str(broken)) from broken
    return CallAnswer(status, headers, b"".join(pieces))


class CallHandler:
    """The handler of a job's calls. ``count`` takes each finished exchange."""

    def __init__(self, services: ProxyServices, ids: RequestIds, count: Callable[[Exchange], None]) -> None:
        self._services = services
        self._ids = ids
        self._count = count
        settings = services.settings
        self._by_key = settings.by_key
        # a job keeps no secret: its calls go upstream without one
        self._credential = fingerprint(()) if settings.forwards_credentials else ""

    async def __call__(self, item: Claimed, cancel_token: CancelToken) -> ItemResult | Reschedule:
        exchange = self.begin(item)
        try:
            endpoint = BY_PATH[item.job.path]
            request = await parse_request(
                exchange, endpoint, item.body, item.job.path.encode(), item.job.headers, LOCAL, self._services
            )
            answer = await fetch_answer(exchange, request, self._services, cancel_token)
            if exchange.stored in NO_ANSWERS:
                raise UpstreamBroke("The model server's answer is none: it holds an error, or nothing.")
        except ProxyError as error:
            exchange.status, exchange.error = error.http_status, error.message
            return self.retry_or_fail(item, error, exchange)
        except ClientDisconnected:
            exchange.status, exchange.error = 499, "the job was cancelled"
            return Reschedule(0.0, counts=False)
        finally:
            self.end(exchange)
        return ItemResult(
            ItemStatus.COMPLETED,
            answer.status,
            answer.body,
            request_id=exchange.request_id,
            cache=exchange.cache or "",
            seconds=perf_counter() - exchange.started,
            tokens=token_usage(answer.body),
        )

    def begin(self, item: Claimed) -> Exchange:
        """Makes the exchange of a job's call."""
        job, tracer, now = item.job, self._services.tracer, time.time()
        return Exchange(
            self._ids.next(),
            "POST",
            job.path,
            perf_counter(),
            now,
            caller=Caller(
                job.caller,
                scope=job.scope if self._by_key else "",
                owner=job.scope,
                credential=self._credential,
            ),
            session=job.session,
            user=job.user_name,
            trace=None if tracer is None else tracer.begin(job.headers, now),
        )

    def end(self, exchange: Exchange) -> None:
        """Counts and records a call that is over."""
        exchange.finished = perf_counter()
        self._count(exchange)

    def retry_or_fail(self, item: Claimed, error: ProxyError, exchange: Exchange) -> ItemResult | Reschedule:
        """Decides what follows from a failed attempt."""
        decision = decide(error)
        if decision is RetryDecision.WAIT:
            return Reschedule(max(_ABSENT_SECONDS, pause_after(1, error)), counts=False)
        if decision is RetryDecision.AGAIN and item.attempts + 1 < self._services.settings.job_max_attempts:
            return Reschedule(pause_after(item.attempts + 1, error))
        return failed_result(error, exchange)


def failed_result(error: ProxyError, exchange: Exchange) -> ItemResult:
    """The result of an item whose last try failed with ``error``."""
    has_answer = not isinstance(error, UpstreamError) or isinstance(error, UpstreamStatus)
    return ItemResult(
        ItemStatus.FAILED,
        error.http_status if has_answer else 0,
        error.body(),
        error=Failure(error.error_code or "error", error.message),
        request_id=exchange.request_id,
        cache=exchange.cache or "",
        seconds=perf_counter() - exchange.started,
    )


def token_usage(body: bytes) -> TokenUsage:
    """Reads the tokens that an answer of chat, completions, embeddings or Responses counts."""
    usage = (peek(body) or {}).get("usage")
    if not isinstance(usage, dict):
        return TokenUsage()
    prompt = _number(usage, "prompt_tokens") or _number(usage, "input_tokens")
    completion = _number(usage, "completion_tokens") or _number(usage, "output_tokens")
    prompt_details = usage.get("prompt_tokens_details") or usage.get("input_tokens_details")
    completion_details = usage.get("completion_tokens_details") or usage.get("output_tokens_details")
    return TokenUsage(
        prompt, completion, _number(prompt_details, "cached_tokens"), _number(completion_details, "reasoning_tokens")
    )


def _number(holder: Any, name: str) -> int:
    value = holder.get(name) if isinstance(holder, dict) else None
    return value if isinstance(value, int) and value > 0 else 0
