"""Chat on real llama.cpp through the official client: what is asked once is instant, and the same, after that."""

import asyncio
from typing import Any

import httpx
import openai
import pytest

from tests.e2e.asking import CITY_SCHEMA, body, chat, text, tool_call
from tests.llama import CHAT_MODEL
from tests.scripted import marker
from tests.server import Proxy


def test_a_miss_then_a_hit(client: openai.OpenAI) -> None:
    arguments = chat()
    miss = client.chat.completions.with_raw_response.create(**arguments)
    hit = client.chat.completions.with_raw_response.create(**arguments)
    assert miss.headers["x-cache"] == "MISS"
    assert miss.headers["cache-status"].startswith("llmproxy; fwd=uri-miss")
    assert "age" not in miss.headers
    assert hit.headers["x-cache"] == "HIT"
    status = hit.headers["cache-status"]
    assert status.startswith("llmproxy; hit; ttl=")
    assert 'key="' in status
    assert "detail=memory" in status
    assert int(hit.headers["age"]) >= 0
    assert hit.headers["x-request-id"] != miss.headers["x-request-id"]
    assert hit.content == miss.content
    answer = hit.parse()
    assert answer.choices[0].message.content
    assert answer.usage is not None
    assert answer.usage.completion_tokens > 0


def test_the_callers_request_id_is_kept(client: openai.OpenAI) -> None:
    arguments = chat()
    for _ in range(3):
        answer = client.chat.completions.create(**arguments, extra_headers={"X-Request-Id": "mine-1"})
        assert answer._request_id == "mine-1"


def test_a_stream_is_replayed_frame_by_frame(client: openai.OpenAI, llama_front: Proxy) -> None:
    arguments = chat(stream=True)
    live = list(client.chat.completions.create(**arguments))
    replayed = list(client.chat.completions.create(**arguments))
    assert [chunk.model_dump() for chunk in live] == [chunk.model_dump() for chunk in replayed]
    assert len(live) > 5
    assert not any(not chunk.choices for chunk in live), "usage only for those who ask for it"
    url = f"{llama_front.url}/v1/chat/completions"
    first, second = (httpx.post(url, json=body(arguments | {"seed": 1}), timeout=60) for _ in range(2))
    assert (first.headers["x-cache"], second.headers["x-cache"]) == ("MISS", "HIT")
    assert first.content == second.content
    assert first.headers["content-type"] == second.headers["content-type"]


def test_a_plain_request_is_answered_from_a_streams_entry(client: openai.OpenAI) -> None:
    arguments = chat()
    chunks = list(client.chat.completions.create(**arguments, stream=True))
    plain = client.chat.completions.with_raw_response.create(**arguments)
    assert plain.headers["x-cache"] == "HIT"
    answer = plain.parse()
    assert answer.choices[0].message.content == text(chunks)
    assert answer.choices[0].finish_reason == "length"
    assert answer.id == chunks[0].id
    assert answer.usage is not None
    assert answer.usage.completion_tokens == 12


def test_a_stream_is_answered_from_a_plain_entry(client: openai.OpenAI) -> None:
    arguments = chat()
    answer = client.chat.completions.create(**arguments)
    raw = client.chat.completions.with_raw_response.create(**arguments, stream=True)
    assert raw.headers["x-cache"] == "HIT"
    chunks = list(raw.parse())
    assert text(chunks) == answer.choices[0].message.content
    assert chunks[0].choices[0].delta.role == "assistant"
    assert chunks[-1].choices[0].finish_reason == "length"


@pytest.mark.parametrize("first_asks", [True, False], ids=["with first", "without first"])
def test_usage_is_given_to_those_who_ask(client: openai.OpenAI, first_asks: bool) -> None:
    arguments = chat(stream=True)
    for asks in (first_asks, not first_asks):
        more: dict[str, Any] = {"stream_options": {"include_usage": True}} if asks else {}
        chunks = list(client.chat.completions.create(**arguments, **more))
        usages = [chunk.usage for chunk in chunks if not chunk.choices]
        assert len(usages) == (1 if asks else 0)
        if asks:
            assert usages[0] is not None
            assert usages[0].completion_tokens == 12


@pytest.mark.parametrize("order", [(True, False), (False, True)], ids=["stream first", "plain first"])
def test_tool_calls_in_both_forms(client: openai.OpenAI, order: tuple[bool, bool]) -> None:
    arguments = tool_call()
    for stream in order:
        if not stream:
            message = client.chat.completions.create(**arguments).choices[0].message
            assert message.tool_calls is not None
            calls = [call.model_dump() for call in message.tool_calls]
            assert calls[0]["function"]["arguments"] == '{"city": "Paris"}'
            continue
        with client.chat.completions.stream(**arguments) as events:
            choice = events.until_done().get_final_completion().choices[0]
        assert choice.finish_reason == "tool_calls"
        assert choice.message.tool_calls is not None
        function = choice.message.tool_calls[0].function
        assert (function.name, function.arguments) == ("get_weather", '{"city": "Paris"}')


def test_response_format(client: openai.OpenAI) -> None:
    schema = {"name": "city", "strict": True, "schema": CITY_SCHEMA}
    arguments = chat("Paris?", max_tokens=60, extra_body=None)
    arguments["response_format"] = {"type": "json_schema", "json_schema": schema}
    first = client.chat.completions.create(**arguments)
    again = client.chat.completions.with_raw_response.create(**arguments)
    assert again.headers["x-cache"] == "HIT"
    content = first.choices[0].message.content or ""
    answer = httpx.Response(200, text=content).json()
    assert answer["city"] in {"Paris", "Rome"}
    other = {**arguments, "response_format": {"type": "json_object"}}
    assert client.chat.completions.with_raw_response.create(**other).headers["x-cache"] == "MISS"


@pytest.mark.parametrize("order", [(True, False), (False, True)], ids=["stream first", "plain first"])
def test_logprobs_in_both_forms(client: openai.OpenAI, order: tuple[bool, bool]) -> None:
    arguments = chat(max_tokens=4, logprobs=True, top_logprobs=2)
    seen = []
    for stream in order:
        if stream:
            chunks = list(client.chat.completions.create(**arguments, stream=True))
            parts = [choice.logprobs for chunk in chunks for choice in chunk.choices if choice.logprobs]
            seen.append([token.token for part in parts for token in part.content or []])
        else:
            logprobs = client.chat.completions.create(**arguments).choices[0].logprobs
            assert logprobs is not None
            assert logprobs.content is not None
            assert all(len(token.top_logprobs) == 2 for token in logprobs.content)
            seen.append([token.token for token in logprobs.content])
    assert seen[0] == seen[1]
    assert len(seen[0]) == 4


@pytest.mark.parametrize("stream_first", [True, False], ids=["stream first", "plain first"])
def test_several_choices(client: openai.OpenAI, stream_first: bool) -> None:
    arguments = chat(n=2, temperature=1, seed=7 + stream_first)
    texts = []
    for stream in (stream_first, not stream_first):
        if stream:
            chunks = list(client.chat.completions.create(**arguments, stream=True))
            texts.append([text(chunks, index) for index in range(2)])
        else:
            choices = client.chat.completions.create(**arguments).choices
            assert [choice.index for choice in choices] == [0, 1]
            texts.append([choice.message.content or "" for choice in choices])
    assert texts[0] == texts[1]
    assert all(texts[0])


def test_more_choices_than_slots_is_refused_as_upstream_refuses_it(client: openai.OpenAI) -> None:
    with pytest.raises(openai.BadRequestError, match="must be between") as caught:
        client.chat.completions.create(**chat(n=9))
    assert caught.value.code == "400" or caught.value.code is None


def test_stop(client: openai.OpenAI) -> None:
    arguments = chat("Count: 1, 2, 3, 4,", max_tokens=40, stop=["."])
    first = client.chat.completions.create(**arguments)
    assert "." not in (first.choices[0].message.content or "")
    chunks = list(client.chat.completions.create(**arguments, stream=True))
    assert text(chunks) == first.choices[0].message.content


def test_unicode(client: openai.OpenAI) -> None:
    arguments = chat("Repeat: naïve 日本 🙂 e\u0301 \U0001f469\u200d\U0001f4bb \u202e", max_tokens=24)
    first = client.chat.completions.create(**arguments)
    chunks = list(client.chat.completions.create(**arguments, stream=True))
    again = client.chat.completions.with_raw_response.create(**arguments)
    assert again.headers["x-cache"] == "HIT"
    assert text(chunks) == first.choices[0].message.content == again.parse().choices[0].message.content


@pytest.mark.parametrize("stream", [False, True], ids=["plain", "stream"])
def test_a_prompt_that_is_too_long_is_refused_with_its_type(client: openai.OpenAI, stream: bool) -> None:
    arguments = chat("hello " * 3000, stream=stream)
    for _ in range(2):
        with pytest.raises(openai.BadRequestError, match="exceeds the available context size") as caught:
            client.chat.completions.create(**arguments)
        assert caught.value.type == "exceed_context_size_error"
        assert caught.value.response.headers.get("x-cache") != "HIT", "an error is never kept"


def test_an_image_is_refused_once_the_way_upstream_refuses_it(llama_front: Proxy) -> None:
    """llama.cpp says 500 though it will never change; the SDK must not try again and again."""
    image = {"type": "image_url", "image_url": {"url": "data:image/png;base64,iVBORw0KGgo="}}
    arguments = chat()
    arguments["messages"][0]["content"] = [{"type": "text", "text": "What is this?"}, image]
    asked: list[Any] = []
    counting = openai.DefaultHttpxClient(event_hooks={"request": [asked.append]})
    with (
        openai.OpenAI(base_url=f"{llama_front.url}/v1", api_key="none", http_client=counting) as retrying,
        pytest.raises(openai.InternalServerError, match="image input is not supported"),
    ):
        retrying.chat.completions.create(**arguments)
    assert len(asked) == 1


async def test_the_asynchronous_client(async_client: openai.AsyncOpenAI) -> None:
    arguments = chat()
    chunks = [chunk async for chunk in await async_client.chat.completions.create(**arguments, stream=True)]
    hit = await async_client.chat.completions.with_raw_response.create(**arguments)
    assert hit.headers["x-cache"] == "HIT"
    assert hit.parse().choices[0].message.content == text(chunks)


async def test_ten_at_once_cost_one_generation(async_client: openai.AsyncOpenAI) -> None:
    arguments = chat(max_tokens=40)
    create = async_client.chat.completions.with_raw_response.create
    answers = await asyncio.gather(*(create(**arguments) for _ in range(10)))
    assert sorted(answer.headers["x-cache"] for answer in answers).count("MISS") == 1
    assert len({answer.content for answer in answers}) == 1


def test_legacy_completions_in_both_forms(client: openai.OpenAI) -> None:
    arguments: dict[str, Any] = {"model": CHAT_MODEL, "prompt": marker(), "max_tokens": 8}
    answer = client.completions.create(**arguments, temperature=0)
    raw = client.completions.with_raw_response.create(**arguments, temperature=0, stream=True)
    assert raw.headers["x-cache"] == "HIT"
    assert "".join(chunk.choices[0].text for chunk in raw.parse() if chunk.choices) == answer.choices[0].text


def test_models(client: openai.OpenAI) -> None:
    names = [model.id for model in client.models.list()]
    assert names == ["smollm2", "smollm2-embed"]
    assert client.models.retrieve("smollm2-embed").id == "smollm2-embed"
    with pytest.raises(openai.NotFoundError):
        client.models.retrieve("org/no-such:model")
