"""Responses of servers that have chat completions only: llama.cpp with its Responses hidden, and scripted ones."""

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import openai
import pytest

from tests.api.responses.asking import client_of, over
from tests.conftest import MakeProxy
from tests.e2e.asking import TO_THE_END, function_call
from tests.llama import CHAT_MODEL, Llama
from tests.scripted_upstream import ScriptedUpstream
from tests.server import Proxy
from tests.upstream.scripted import Scripted, Visit, scripted

CHAT_ONLY = frozenset({"/v1/responses"})


@asynccontextmanager
async def chat_only(llama: Llama) -> AsyncIterator[Scripted]:
    """llama.cpp behind a server that does not know its Responses."""
    # llama.cpp closes a connection that was idle for 5 s: each call gets one of its own
    limits = httpx.Limits(max_keepalive_connections=0)
    async with httpx.AsyncClient(base_url=llama.url, timeout=60, limits=limits, trust_env=False) as client:

        async def relay(visit: Visit) -> None:
            if visit.path.startswith("/v1/responses"):
                await visit.reply(b"404 page not found", "404 Not Found", b"content-type: text/plain\r\n")
                return
            method = visit.line.split()[0].decode()
            reply = await client.request(method, visit.path, content=visit.body)
            kind = reply.headers.get("content-type", "text/plain").encode()
            await visit.reply(reply.content, f"{reply.status_code} X", b"content-type: %b\r\n" % kind)

        async with scripted(relay) as server:
            yield server


async def test_a_real_model_answers_by_chat(llama: Llama, proxy: MakeProxy) -> None:
    async with chat_only(llama) as server:
        # the server that is asked at the start answers on this loop
        front = await asyncio.to_thread(proxy, server.url)
        async with openai.AsyncOpenAI(base_url=f"{front.url}/v1", api_key="none", max_retries=0) as client:
            arguments: dict[str, Any] = {
                "model": CHAT_MODEL,
                "input": "Say hello.",
                "temperature": 0,
                "max_output_tokens": 12,
                "extra_body": TO_THE_END,
            }
            raw = await client.responses.with_raw_response.create(**arguments)
            answer = raw.parse()
            assert raw.headers["x-cache"] == "MISS"
            assert answer.status == "incomplete"
            assert answer.usage is not None
            assert answer.usage.output_tokens == 12
            async with client.responses.stream(**arguments) as stream:
                events = [event async for event in stream]
            deltas = "".join(event.delta for event in events if event.type == "response.output_text.delta")
            assert deltas == answer.output_text != ""

            tools = await client.responses.create(
                model=CHAT_MODEL, temperature=0, max_output_tokens=64, **function_call()
            )
            calls = [item for item in tools.output if item.type == "function_call"]
            assert [(call.name, json.loads(call.arguments).keys()) for call in calls] == [("get_weather", {"city"})]
        asked = [visit.path for visit in server.visits if visit.line.startswith(b"POST")]
        # nobody asks the model server any more when it is closed
        await asyncio.to_thread(front.stop)
        # that it has none is remembered: it is not asked for them again
        assert (asked[0], asked.count("/v1/responses")) == ("/v1/responses", 1)


@pytest.fixture(scope="module")
def bare() -> Iterator[ScriptedUpstream]:
    with ScriptedUpstream(lacks=CHAT_ONLY) as upstream:
        yield upstream


@pytest.fixture(scope="module")
def bare_front(bare: ScriptedUpstream, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Proxy]:
    with Proxy(bare.url, database=tmp_path_factory.mktemp("bare") / "llmproxy.db") as front:
        yield front


def test_they_are_stored_gone_on_with_and_made_in_the_background(bare_front: Proxy, bare: ScriptedUpstream) -> None:
    with client_of(bare_front) as client:
        first = client.responses.create(model="scripted", input="first-question")
        assert client.responses.retrieve(first.id).output_text == first.output_text != ""
        client.responses.create(model="scripted", input="second-question", previous_response_id=first.id)
        sent = bare.visits("second-question")[-1].json["messages"]
        assert [message["role"] for message in sent] == ["user", "assistant", "user"]
        assert sent[1]["content"] == first.output_text
        later = over(client, client.responses.create(model="scripted", input="later-question", background=True).id)
        assert (later.status, later.output_text != "") == ("completed", True)


def test_what_chat_cannot_express_is_a_clear_error(bare_front: Proxy) -> None:
    with client_of(bare_front) as client, pytest.raises(openai.BadRequestError, match="web_search") as refused:
        client.responses.create(model="scripted", input="x", tools=[{"type": "web_search"}])
    assert refused.value.param == "tools[0]"


def test_a_server_with_neither_is_named_as_the_reason(proxy: MakeProxy) -> None:
    with ScriptedUpstream(lacks=CHAT_ONLY | {"/v1/chat/completions", "/v1/embeddings"}) as upstream:
        front = proxy(upstream.url)
        with client_of(front) as client:
            with pytest.raises(openai.NotFoundError):
                client.responses.create(model="scripted", input="x")
            failed = over(client, client.responses.create(model="scripted", input="y", background=True).id)
    assert failed.error is not None
    assert failed.error.code == "server_error"
    assert "has no endpoint /v1/responses" in failed.error.message
