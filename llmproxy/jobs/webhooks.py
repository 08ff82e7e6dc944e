"""The handler of the step that calls a webhook at a job's end, and its signature (Standard Webhooks 1.0)."""

import asyncio
import hmac
import logging
import time
from base64 import b64decode, b64encode
from hashlib import sha256
from urllib.parse import urlsplit

import orjson

from llmproxy.config.settings import Settings
from llmproxy.jobs.handler import CancelToken
from llmproxy.jobs.model import Claimed, Failure, ItemResult, ItemStatus, Reschedule
from llmproxy.jobs.webhook_urls import refusal
from llmproxy.runtime.background import Backoff
from llmproxy.upstream.post import Posted, PostFailed, post
from llmproxy.wire.headers import HeaderList, retry_after_seconds

log = logging.getLogger(__name__)

#: how long a receiver may take
SECONDS = 10.0
#: longest pause that a receiver can ask for
_LONGEST_SECONDS = 3600.0
#: the status of a receiver that wants no more events
_GONE = 410

_BACKOFF = Backoff(first=1.0, longest=_LONGEST_SECONDS)
#: doublings between two tries: a receiver that is being restarted is found again within the usual five
_GROWTH = 3


class Deliver:
    """Posts an event to the job's ``webhook_url``. A second time only if a process died between the answer and the
    noting of it; the event has the same id then."""

    def __init__(self, settings: Settings) -> None:
        self._trusted = settings.webhook_url
        self._hosts = settings.webhook_hosts
        self._most_attempts = settings.job_max_attempts
        secret = settings.webhook_secret
        self._key = None if secret is None else key_of(secret.get_secret_value())

    async def __call__(self, item: Claimed, cancel_token: CancelToken) -> ItemResult | Reschedule:
        url = item.job.webhook_url
        if url != self._trusted and (reason := refusal(url, self._hosts)):
            # the list may have changed since the job was accepted
            return _failed(item, 0, f"the URL {reason}")
        body = event_json(item)
        headers = self._headers(event_id(item), body, int(time.time()))
        try:
            posted = await _post_unless_cancelled(url, headers, body, cancel_token)
        except PostFailed as error:
            return self._retry_or_fail(item, 0, str(error))
        if posted is None:
            return Reschedule(0.0, counts=False)
        if 200 <= posted.status < 300:
            return ItemResult(ItemStatus.COMPLETED, posted.status)
        if posted.status == _GONE:
            return _failed(item, posted.status, "it answered 410, it is disconnected for good")
        retry_after = min(retry_after_seconds(posted.headers, time.time()), _LONGEST_SECONDS)
        return self._retry_or_fail(item, posted.status, f"it answered {posted.status}", retry_after)

    def _headers(self, id: str, body: bytes, timestamp: int) -> HeaderList:
        headers = [
            (b"content-type", b"application/json"),
            (b"user-agent", b"llmproxy"),
            (b"webhook-id", id.encode()),
            (b"webhook-timestamp", b"%d" % timestamp),
        ]
        if self._key is not None:
            headers.append((b"webhook-signature", signature(self._key, id, timestamp, body).encode()))
        return headers

    def _retry_or_fail(self, item: Claimed, status: int, why: str, least: float = 0.0) -> ItemResult | Reschedule:
        """Decides what follows from a failed attempt. ``least`` is the pause that the receiver asked for, in
        seconds."""
        failures = item.attempts + 1
        if failures >= self._most_attempts:
            return _failed(item, status, why)
        return Reschedule(max(_BACKOFF.seconds(1 + _GROWTH * (failures - 1)), least))


def event_id(item: Claimed) -> str:
    """The same at every try, another one when the job ends once more, and nobody else's."""
    return f"evt_{sha256(f'{item.job.id}.{item.id}'.encode()).hexdigest()[:32]}"


def event_json(item: Claimed) -> bytes:
    """The JSON of the event."""
    return orjson.dumps({"id": event_id(item), "object": "event", **orjson.loads(item.body)})


async def _post_unless_cancelled(
    url: str, headers: HeaderList, body: bytes, cancel_token: CancelToken
) -> Posted | None:
    """The answer; None if the lease was lost meanwhile. Raises ``PostFailed``."""
    posting = asyncio.ensure_future(post(url, headers, body, SECONDS))

    def leave() -> None:
        posting.cancel()

    cancel_token.watch(leave)
    try:
        await asyncio.wait({posting})
    finally:
        posting.cancel()
        await asyncio.wait({posting})
    return None if posting.cancelled() else posting.result()


def _failed(item: Claimed, status: int, why: str) -> ItemResult:
    # of the URL only the host: what follows it may be a secret
    log.warning("job %s: its webhook at %s was not told: %s", item.job.id, urlsplit(item.job.webhook_url).hostname, why)
    return ItemResult(
        ItemStatus.FAILED, status, error=Failure("webhook_failed", f"The webhook was not told of the job's end: {why}.")
    )


_SECRET_PREFIX = "whsec_"


def key_of(secret: str) -> bytes:
    """The key that a secret stands for: base64 after ``whsec_``, else the text itself.

    Raises ``ValueError`` if there is no base64 after the prefix.
    """
    if secret.startswith(_SECRET_PREFIX):
        return b64decode(secret.removeprefix(_SECRET_PREFIX), validate=True)
    return secret.encode()


def signature(key: bytes, id: str, timestamp: int, body: bytes) -> str:
    """The value of ``webhook-signature``. ``timestamp`` in Unix seconds."""
    signed = b"%s.%d.%s" % (id.encode(), timestamp, body)
    return "v1," + b64encode(hmac.digest(key, signed, "sha256")).decode()
