"""Stored Responses on real llama.cpp through the official client: each way to ask, and what can be asked afterwards."""

from typing import Any

import openai
import pytest

from tests.api.responses.asking import over
from tests.e2e.asking import WEATHER
from tests.e2e.test_responses import answered, responses
from tests.llama import CHAT_MODEL
from tests.scripted import marker

QUESTION = "What is the capital of France?"


def test_a_plain_one_can_be_asked_for_again(client: openai.OpenAI) -> None:
    made = client.responses.create(**responses())
    assert made.id.startswith("resp_")
    assert made.to_dict()["store"] is True
    assert (made.status, made.background, made.previous_response_id) == ("incomplete", False, None)
    assert client.responses.retrieve(made.id) == made
    assert client.responses.retrieve(made.id, include=["message.output_text.logprobs"]) == made
    assert client.beta.responses.retrieve(made.id).to_dict() == made.to_dict()


def test_a_streamed_one_can_be_asked_for_again(client: openai.OpenAI) -> None:
    with client.responses.stream(**answered(QUESTION, 0.91)) as stream:
        events: list[Any] = list(stream)
        final = stream.get_final_response()
    ids = {event.response.id for event in events if hasattr(event, "response")}
    assert ids == {final.id}
    kept = client.responses.retrieve(final.id)
    assert kept.output_text == final.output_text
    assert kept.to_dict()["store"] is True


def test_one_that_is_not_to_be_stored_cannot(client: openai.OpenAI) -> None:
    made = client.responses.create(**responses(store=False))
    assert made.to_dict()["store"] is False
    with pytest.raises(openai.NotFoundError, match=f"Response with id '{made.id}' not found"):
        client.responses.retrieve(made.id)


@pytest.mark.parametrize("stream", [False, True], ids=["plain", "stream"])
def test_a_hit_is_a_response_of_its_own(client: openai.OpenAI, stream: bool) -> None:
    arguments = responses(stream=stream)
    made = []
    for _ in range(2):
        raw = client.responses.with_raw_response.create(**arguments)
        parsed: Any = raw.parse()
        made.append((list(parsed)[-1].response if stream else parsed, raw.headers["x-cache"]))
    (first, missed), (second, hit) = made
    assert (missed, hit) == ("MISS", "HIT")
    assert first.id != second.id
    assert first.output_text == second.output_text
    assert [client.responses.retrieve(each.id).id for each in (first, second)] == [first.id, second.id]


def test_one_of_the_background_is_made_while_nobody_waits(client: openai.OpenAI) -> None:
    queued = client.responses.create(**responses(background=True, metadata={"a": "b"}))
    assert (queued.status, queued.output, queued.background) == ("queued", [], True)
    assert (queued.output_text, queued.metadata, queued.usage) == ("", {"a": "b"}, None)
    done = over(client, queued.id)
    assert (done.id, done.created_at, done.background) == (queued.id, queued.created_at, True)
    assert (done.status, done.metadata) == ("incomplete", {"a": "b"})
    assert done.output_text
    assert done.usage is not None
    assert done.usage.output_tokens == 12


def test_one_of_the_background_that_is_not_to_be_stored_can_be_waited_for(client: openai.OpenAI) -> None:
    queued = client.responses.create(**responses(background=True, store=False))
    assert queued.to_dict()["store"] is False
    done = over(client, queued.id)
    assert done.output_text
    assert done.to_dict()["store"] is False


def test_one_of_the_background_streams_and_is_told_again(client: openai.OpenAI) -> None:
    events = list(client.responses.create(**answered(QUESTION, 0.92), background=True, stream=True))
    kinds = [event.type for event in events]
    assert kinds[:3] == ["response.created", "response.queued", "response.in_progress"]
    assert kinds[-1] == "response.completed"
    assert [event.sequence_number for event in events] == list(range(len(events)))
    opening: Any = events[0]
    id = opening.response.id
    assert {event.response.id for event in events if hasattr(event, "response")} == {id}
    assert opening.response.status == "queued"
    assert opening.response.output == []
    final: Any = events[-1]
    assert client.responses.retrieve(id) == final.response
    assert [*client.responses.retrieve(id, stream=True)] == events
    assert [*client.responses.retrieve(id, stream=True, starting_after=4)] == events[5:]
    assert [*client.responses.retrieve(id, stream=True, starting_after=len(events) - 1)] == []
    with client.responses.stream(response_id=id, starting_after=4) as stream:
        assert [event.sequence_number for event in stream] == list(range(5, len(events)))
        assert stream.get_final_response().output_text == final.response.output_text


def test_a_function_call_of_the_background_and_its_output(client: openai.OpenAI) -> None:
    tools: Any = [{"type": "function", **WEATHER}]
    shown = responses("x")["input"]
    history: list[Any] = []
    for number, city in enumerate(("Rome", "Oslo")):
        call = {"type": "function_call", "call_id": f"call_{number}", "name": "get_weather"}
        history += [{"role": "user", "content": f"Weather in {city}? {shown}"}]
        history += [call | {"arguments": f'{{"city": "{city}"}}'}]
    asked = responses(max_output_tokens=64, extra_body=None, tools=tools, tool_choice="required")
    asked |= {"input": [*history, {"role": "user", "content": "Weather in Paris?"}]}
    queued = client.responses.create(**asked, background=True)
    done = over(client, queued.id)
    (call_item,) = [item for item in done.output if item.type == "function_call"]
    output: Any = {"type": "function_call_output", "call_id": call_item.call_id, "output": "sunny"}
    answer = client.responses.create(**responses() | {"input": [output]}, previous_response_id=done.id)
    assert answer.output_text
    assert answer.previous_response_id == done.id


def test_a_conversation_goes_on_and_the_model_sees_all_of_it(client: openai.OpenAI) -> None:
    first = client.responses.create(**answered(f"My name is Ada. {marker()}", 0.93))
    second = client.responses.create(**answered("What is my name?", 0.93), previous_response_id=first.id)
    alone = client.responses.create(**answered("What is my name?", 0.93))
    assert first.usage is not None
    assert second.usage is not None
    assert alone.usage is not None
    assert second.usage.input_tokens > first.usage.input_tokens + alone.usage.input_tokens
    assert client.responses.retrieve(second.id).previous_response_id == first.id


def test_the_same_conversation_again_costs_nothing(client: openai.OpenAI) -> None:
    opening, states = marker(), []
    for _ in range(2):
        previous = None
        for prompt in (opening, "Go on.", "And then?"):
            arguments: dict[str, Any] = {**responses(), "input": prompt}
            raw = client.responses.with_raw_response.create(**arguments, previous_response_id=previous)
            previous = raw.parse().id
            states.append(raw.headers["x-cache"])
    assert states == ["MISS"] * 3 + ["HIT"] * 3


def test_its_input_can_be_listed(client: openai.OpenAI) -> None:
    items: Any = [{"role": "user", "content": f"{n} {marker()}"} for n in range(5)]
    made = client.responses.create(**responses() | {"input": items})
    listed: list[Any] = list(client.responses.input_items.list(made.id))
    texts = [item.content[0].text for item in listed]
    assert texts == [item["content"] for item in reversed(items)]
    assert len({item.id for item in listed}) == 5
    page = client.responses.input_items.list(made.id, limit=2, order="asc")
    assert [item.id for item in page.data] == [item.id for item in reversed(listed)][:2]
    assert page.has_more
    second = page.get_next_page()
    assert [item.id for item in second.data] == [item.id for item in reversed(listed)][2:4]
    assert client.responses.input_items.list(made.id, after="none").data == []


def test_it_can_be_deleted(client: openai.OpenAI) -> None:
    for background in (False, True):
        made = over(client, client.responses.create(**responses(background=background)).id)
        client.responses.delete(made.id)
        for ask in (client.responses.retrieve, client.responses.delete, client.responses.input_items.list):
            with pytest.raises(openai.NotFoundError):
                ask(made.id)


@pytest.mark.parametrize("id", ["resp_unknown", "input_tokens", "resp_%00", "x" * 300])
def test_nobody_knows_an_unknown_id(client: openai.OpenAI, id: str) -> None:
    calls = (client.responses.retrieve, client.responses.delete, client.responses.cancel)
    for ask in (*calls, client.responses.input_items.list):
        with pytest.raises(openai.NotFoundError) as caught:
            ask(id)
        assert caught.value.type == "invalid_request_error"


def test_its_tokens_are_still_counted_by_the_upstream(client: openai.OpenAI) -> None:
    counted = client.responses.input_tokens.count(model=CHAT_MODEL, input=QUESTION)
    assert counted.input_tokens > 0
