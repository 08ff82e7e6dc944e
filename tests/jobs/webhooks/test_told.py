"""Webhooks from the outside: the program tells of the end of tasks."""

import asyncio
import json

import httpx
import openai

from tests.api.tasks.asking import background, batch, ended, message
from tests.conftest import MakeProxy
from tests.jobs.webhooks.receiver import Delivery, Receiver
from tests.scripted import marker
from tests.scripted_upstream import ScriptedUpstream

SECRET = "whsec_c2VjcmV0IG9mIHRoZSB0ZXN0cw=="


def verified(told: Delivery) -> tuple[str, str]:
    """The type of a delivery and the job's id, if its signature is right."""
    client = openai.OpenAI(api_key="none", base_url="http://127.0.0.1:9")
    client.webhooks.verify_signature(told.body.decode(), told.headers, secret=SECRET)
    event = json.loads(told.body)
    assert set(event) == {"id", "object", "created_at", "type", "data"}
    assert event["id"] == told.headers["webhook-id"]
    return event["type"], event["data"]["id"]


async def test_every_end_is_told_to_the_settings_url(proxy: MakeProxy, upstream: ScriptedUpstream) -> None:
    gate = upstream.gate()
    with Receiver() as receiver:
        own = proxy(upstream.url, webhook_url=receiver.url, webhook_secret=SECRET)
        async with httpx.AsyncClient(base_url=own.url, trust_env=False, timeout=60) as client:
            done = await background(client, marker())
            assert verified(await asyncio.to_thread(receiver.taken)) == ("task.completed", done)
            failed = await batch(client, [f"{marker()} [script:status=400]"] * 2)
            assert verified(await asyncio.to_thread(receiver.taken)) == ("task.failed", failed)
            stopped = await background(client, f"{marker()} [script:gate={gate.name}]")
            await client.delete(f"/api/tasks/{stopped}")
            assert verified(await asyncio.to_thread(receiver.taken)) == ("task.cancelled", stopped)
            # who gets the answer at once needs not be told
            await client.post("/api/completions", json={"prompt": marker()})
            last = await background(client, marker())
            assert verified(await asyncio.to_thread(receiver.taken)) == ("task.completed", last)
        assert receiver.quiet


async def test_a_receiver_that_fails_is_told_again(proxy: MakeProxy, upstream: ScriptedUpstream) -> None:
    with Receiver(500) as receiver:
        own = proxy(upstream.url, webhook_hosts=receiver.host, webhook_secret=SECRET)
        async with httpx.AsyncClient(base_url=own.url, trust_env=False, timeout=60) as client:
            id = await background(client, marker(), webhook_url=f"{receiver.url}?a=b%20c")
            first, second = [await asyncio.to_thread(receiver.taken) for _ in range(2)]
    assert verified(first) == verified(second) == ("task.completed", id)
    assert first.path == "/told?a=b%20c"
    assert first.headers["webhook-id"] == second.headers["webhook-id"]
    assert first.body == second.body


async def test_a_telling_is_not_lost_with_the_process(proxy: MakeProxy, upstream: ScriptedUpstream) -> None:
    with Receiver(silent=True) as deaf:
        own = proxy(upstream.url, webhook_url=deaf.url, webhook_secret=SECRET)
        async with httpx.AsyncClient(base_url=own.url, trust_env=False, timeout=60) as client:
            id = await background(client, marker())
            first = await asyncio.to_thread(deaf.taken)
            own.kill()
        own.start()
        second = await asyncio.to_thread(deaf.taken)
        async with httpx.AsyncClient(base_url=own.url, trust_env=False, timeout=60) as client:
            assert (await ended(client, id))["attempts"] == 1
    assert verified(first) == verified(second) == ("task.completed", id)
    assert first.headers["webhook-id"] == second.headers["webhook-id"]


async def test_a_url_that_is_not_allowed(proxy: MakeProxy, upstream: ScriptedUpstream) -> None:
    own, prompt = proxy(upstream.url, webhook_hosts="hooks.example.com, ci.example.com:8443"), marker()
    wrong = ("http://127.0.0.1:1/", "https://user:pw@hooks.example.com/", "ftp://hooks.example.com/", "x" * 3000, 7)
    async with httpx.AsyncClient(base_url=own.url, trust_env=False) as client:
        for url in wrong:
            one = {"prompt": prompt, "background": True, "webhook_url": url}
            assert "'webhook_url'" in message(await client.post("/api/completions", json=one), 400)
            many = {"prompts": [prompt], "webhook_url": url}
            assert "'webhook_url'" in message(await client.post("/api/completions/batch", json=many), 400)
        assert (await client.get("/api/tasks")).json()["data"] == []
    assert upstream.visits(prompt) == []
