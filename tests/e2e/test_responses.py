"""Responses on real llama.cpp, whose own stream breaks every SDK's helper."""

import json
from typing import Any

import openai
import pytest

from tests.e2e.asking import CITY_SCHEMA, TO_THE_END, function_call
from tests.llama import CHAT_MODEL
from tests.scripted import marker


def responses(prompt: str = "Say hello.", **more: Any) -> dict[str, Any]:
    """Arguments of a response that is cut after 12 tokens and that nobody else asks for."""
    prompt = f"{prompt} {marker()}"
    return {
        "model": CHAT_MODEL,
        "input": prompt,
        "temperature": 0,
        "max_output_tokens": 12,
        "extra_body": TO_THE_END,
        **more,
    }


def answered(question: str, nonce: float) -> dict[str, Any]:
    """Arguments of a response that the model completes. ``nonce`` tells apart those that must not share an entry."""
    return {"model": CHAT_MODEL, "input": question, "temperature": 0, "max_output_tokens": 100, "top_p": nonce}


def helped(client: openai.OpenAI, arguments: dict[str, Any]) -> tuple[Any, list[Any]]:
    """The last snapshot and the events of the SDK's stream helper."""
    with client.responses.stream(**arguments) as stream:
        events: list[Any] = list(stream)
    return events[-1].response, events


def test_create_then_a_hit(client: openai.OpenAI) -> None:
    arguments = responses()
    miss = client.responses.with_raw_response.create(**arguments)
    hit = client.responses.with_raw_response.create(**arguments)
    assert (miss.headers["x-cache"], hit.headers["x-cache"]) == ("MISS", "HIT")
    answer = miss.parse()
    assert answer.output_text
    assert answer.output_text == hit.parse().output_text
    assert answer.usage is not None
    assert answer.usage.output_tokens == 12
    assert answer.usage.output_tokens_details.reasoning_tokens == 0
    assert answer.status == "incomplete"
    assert answer.incomplete_details is not None
    assert answer.incomplete_details.reason == "max_output_tokens"


#: what Open Responses requires of a response object
STRICT = frozenset(
    {
        *("id", "object", "created_at", "completed_at", "status", "incomplete_details", "model", "output", "error"),
        *("previous_response_id", "instructions", "tools", "tool_choice", "truncation", "parallel_tool_calls", "text"),
        *("top_p", "presence_penalty", "frequency_penalty", "top_logprobs", "temperature", "reasoning", "usage"),
        *("max_output_tokens", "max_tool_calls", "store", "background", "service_tier", "metadata"),
        *("safety_identifier", "prompt_cache_key"),
    }
)


def test_every_field_that_strict_parsers_ask_for_is_there(client: openai.OpenAI) -> None:
    document = json.loads(client.responses.with_raw_response.create(**responses()).content)
    assert document.keys() >= STRICT
    item = document["output"][0]
    assert item["id"]
    assert item["status"]
    assert item["content"][0]["annotations"] == []
    assert item["content"][0]["logprobs"] == []


@pytest.mark.parametrize("plain_first", [False, True], ids=["live", "rendered"])
def test_the_stream_helper_works(client: openai.OpenAI, plain_first: bool) -> None:
    arguments = answered("What is the capital of France?", 0.5 + plain_first / 4)
    if plain_first:
        client.responses.create(**arguments)
    with client.responses.stream(**arguments) as stream:
        deltas = [event.delta for event in stream if event.type == "response.output_text.delta"]
        final = stream.get_final_response()
    assert final.status == "completed"
    assert "".join(deltas) == final.output_text
    assert final.output_text == client.responses.create(**arguments).output_text


def test_the_events_have_their_order_numbers_and_one_identity(client: openai.OpenAI) -> None:
    final, events = helped(client, responses())
    assert [event.sequence_number for event in events] == sorted({event.sequence_number for event in events})
    kinds = [event.type for event in events]
    assert kinds[:4] == [
        "response.created",
        "response.in_progress",
        "response.output_item.added",
        "response.content_part.added",
    ]
    assert kinds[-4:] == [
        "response.output_text.done",
        "response.content_part.done",
        "response.output_item.done",
        "response.incomplete",
    ]
    assert {event.response.id for event in events if hasattr(event, "response")} == {final.id}
    assert {event.item_id for event in events if hasattr(event, "item_id")} == {final.output[0].id}


def test_a_json_schema_is_honoured(client: openai.OpenAI) -> None:
    text = {"format": {"type": "json_schema", "name": "city", "strict": True, "schema": CITY_SCHEMA}}
    arguments = responses("Which city?", max_output_tokens=80, text=text, extra_body=None)
    live, _ = helped(client, arguments)
    replayed, _ = helped(client, arguments)
    plain = client.responses.with_raw_response.create(**arguments)
    assert plain.headers["x-cache"] == "HIT"
    assert live.output_text == replayed.output_text == plain.parse().output_text
    answer = json.loads(live.output_text)
    assert answer["city"] in {"Paris", "Rome"}
    assert isinstance(answer["sunny"], bool)


def test_a_function_call_streams(client: openai.OpenAI) -> None:
    asked = responses(max_output_tokens=64, extra_body=None) | function_call()
    final, events = helped(client, asked)
    kinds = [event.type for event in events]
    assert "response.function_call_arguments.delta" in kinds
    assert "response.function_call_arguments.done" in kinds
    (call_item,) = [item for item in final.output if item.type == "function_call"]
    assert (call_item.name, call_item.arguments) == ("get_weather", '{"city": "Paris"}')
    assert call_item.call_id


async def test_the_asynchronous_helper(async_client: openai.AsyncOpenAI) -> None:
    arguments = answered("What is the capital of Italy?", 0.5)
    async with async_client.responses.stream(**arguments) as stream:
        async for _event in stream:
            pass
        final = await stream.get_final_response()
    assert final.output_text
    assert (await async_client.responses.create(**arguments)).output_text == final.output_text


@pytest.mark.parametrize("stream", [False, True], ids=["plain", "stream"])
def test_a_prompt_that_is_too_long_is_refused(client: openai.OpenAI, stream: bool) -> None:
    with pytest.raises(openai.BadRequestError, match="exceeds the available context size"):
        client.responses.create(**responses("hello " * 3000, stream=stream))
