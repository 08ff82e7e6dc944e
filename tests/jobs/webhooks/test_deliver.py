"""The step that tells a webhook, in front of a real receiver."""

import asyncio
import time
from dataclasses import replace
from typing import Any

import openai
import pytest

from llmproxy.config.settings import Settings
from llmproxy.database.engine import Database
from llmproxy.jobs.handler import CancelToken
from llmproxy.jobs.model import Claimed, ItemResult, ItemStatus, JobKind, NewCall, NewJob, Reschedule, Step
from llmproxy.jobs.notifications import JobNotifications
from llmproxy.jobs.queue import Queue
from llmproxy.jobs.store import Store
from llmproxy.jobs.webhooks import Deliver
from tests.jobs.webhooks.receiver import Receiver

SECRET = "whsec_c2VjcmV0IG9mIHRoZSB0ZXN0cw=="
WORKER = "tests"


def settings(receiver: Receiver, **more: Any) -> Settings:
    return Settings(webhook_hosts=(receiver.host,), webhook_secret=SECRET, **more)


async def step(database: Database, url: str, kind: JobKind = JobKind.RESPONSE) -> Claimed:
    """The claimed step of a job that has just ended, as a worker gets it."""
    queue = Queue(Store(database), JobNotifications())
    await queue.submit(NewJob(kind, "/v1/chat/completions", webhook_url=url), [NewCall(0, b"{}")])
    (call,) = await queue.claim(WORKER, 1, 60)
    await queue.finish(WORKER, [(call, ItemResult(ItemStatus.COMPLETED, 200, b"{}"))])
    (item,) = await queue.claim(WORKER, 1, 60)
    assert item.step is Step.DELIVER
    return item


async def test_the_official_client_reads_the_event(database: Database) -> None:
    with Receiver() as receiver:
        item = await step(database, receiver.url)
        result = await Deliver(settings(receiver))(item, CancelToken())
        told = receiver.taken()
    assert result == ItemResult(ItemStatus.COMPLETED, 200)
    assert (told.path, told.headers["content-type"]) == ("/told", "application/json")
    client = openai.OpenAI(api_key="none", base_url="http://127.0.0.1:9", webhook_secret=SECRET)
    event = client.webhooks.unwrap(told.body.decode(), told.headers)
    assert event.type == "response.completed"
    assert (event.object, event.data.id) == ("event", item.job.id)
    assert event.id == told.headers["webhook-id"]
    assert event.id.startswith("evt_")
    assert abs(event.created_at - time.time()) < 60


async def test_without_a_secret_there_is_no_signature(database: Database) -> None:
    with Receiver() as receiver:
        await Deliver(Settings(webhook_url=receiver.url))(await step(database, receiver.url), CancelToken())
        told = receiver.taken()
    assert "webhook-signature" not in told.headers
    assert told.headers["webhook-id"]


async def test_it_is_tried_again_with_the_same_id_until_attempts_end(database: Database) -> None:
    with Receiver(500, 503, 302) as receiver:
        item, deliver = await step(database, receiver.url), Deliver(settings(receiver, job_max_attempts=3))
        pauses = []
        for attempts in range(2):
            after = await deliver(again(item, attempts), CancelToken())
            assert isinstance(after, Reschedule)
            assert after.counts
            pauses.append(after.seconds)
        result = await deliver(again(item, 2), CancelToken())
        assert len({receiver.taken().headers["webhook-id"] for _ in range(3)}) == 1
    assert pauses[0] < pauses[1]
    assert isinstance(result, ItemResult)
    assert (result.status, result.status_code) == (ItemStatus.FAILED, 302)
    assert result.error is not None
    assert "it answered 302" in result.error.message


async def test_a_redirect_is_not_followed(database: Database) -> None:
    with Receiver() as elsewhere, Receiver(307, headers={"location": elsewhere.url}) as receiver:
        after = await Deliver(settings(receiver))(await step(database, receiver.url), CancelToken())
        assert receiver.taken().path == "/told"
        assert elsewhere.quiet
    assert isinstance(after, Reschedule)


async def test_gone_ends_it_at_once(database: Database) -> None:
    with Receiver(410) as receiver:
        result = await Deliver(settings(receiver))(await step(database, receiver.url), CancelToken())
    assert isinstance(result, ItemResult)
    assert (result.status, result.status_code) == (ItemStatus.FAILED, 410)


@pytest.mark.parametrize(("told", "seconds"), [("120", 120), ("99999999", 3600)])
async def test_the_receiver_says_when(database: Database, told: str, seconds: float) -> None:
    with Receiver(429, headers={"retry-after": told}) as receiver:
        after = await Deliver(settings(receiver))(await step(database, receiver.url), CancelToken())
    assert isinstance(after, Reschedule)
    assert after.seconds == seconds


async def test_nobody_is_there(database: Database) -> None:
    with Receiver() as receiver:
        pass
    item = await step(database, receiver.url)
    after = await Deliver(settings(receiver))(item, CancelToken())
    assert isinstance(after, Reschedule)
    assert after.counts
    result = await Deliver(settings(receiver, job_max_attempts=1))(item, CancelToken())
    assert isinstance(result, ItemResult)
    assert result.error is not None
    assert "Connection refused" in result.error.message


async def test_a_host_that_is_not_allowed_any_more(database: Database) -> None:
    with Receiver() as receiver:
        item = await step(database, receiver.url)
        result = await Deliver(Settings(webhook_hosts=("elsewhere.example",)))(item, CancelToken())
        assert receiver.quiet
    assert isinstance(result, ItemResult)
    assert result.status is ItemStatus.FAILED
    assert result.error is not None
    assert "LLMPROXY_WEBHOOK_HOSTS" in result.error.message


async def test_a_lost_lease_ends_the_wait(database: Database) -> None:
    cancel_token = CancelToken()
    with Receiver(silent=True) as receiver:
        item = await step(database, receiver.url)
        telling = asyncio.create_task(Deliver(settings(receiver))(item, cancel_token))
        await asyncio.to_thread(receiver.taken)
        cancel_token.leave()
        assert await telling == Reschedule(0.0, counts=False)


async def test_the_end_of_the_process_ends_the_wait(database: Database) -> None:
    with Receiver(silent=True) as receiver:
        item = await step(database, receiver.url)
        telling = asyncio.create_task(Deliver(settings(receiver))(item, CancelToken()))
        await asyncio.to_thread(receiver.taken)
        telling.cancel()
        with pytest.raises(asyncio.CancelledError):
            await telling


def again(item: Claimed, attempts: int) -> Claimed:
    """The same step at a later try."""
    return replace(item, claims=item.claims + attempts, attempts=attempts)
