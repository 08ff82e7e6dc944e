"""What a request for a Response says of its keeping, and what is left of it for the model server."""

import json
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmproxy.wire.errors import BadRequest, ProxyError, TooMany, UpstreamBroke, UpstreamStatus, envelope
from llmproxy.wire.formats.responses_request import (
    OURS,
    ResponsesRequest,
    history,
    items_of,
    listed_items,
    response_error,
    unfinished,
)


def read(by_default: bool = True, /, **body: Any) -> ResponsesRequest:
    return ResponsesRequest.read({"model": "m", "input": "hi", **body}, store=by_default)


@pytest.mark.parametrize("default", [False, True])
def test_what_says_nothing_is_stored_as_the_settings_want(default: bool) -> None:
    assert read(default).store is default
    assert read(default, store=None).store is default
    assert read(default, store=True).store is True
    assert read(default, store=False).store is False


@pytest.mark.parametrize(
    ("body", "plain"),
    [
        ({"store": False}, True),
        ({"store": False, "background": False}, True),
        ({}, False),
        ({"store": False, "background": True}, False),
        ({"store": False, "previous_response_id": "resp_1"}, False),
        ({"conversation": "conv_1"}, True),
        ({"input": 7}, True),
    ],
)
def test_what_does_not_concern_us_is_plain(body: dict[str, Any], plain: bool) -> None:
    assert read(**body).plain is plain


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"store": "yes"}, "store"),
        ({"background": 1}, "background"),
        ({"stream": "true"}, "stream"),
        ({"previous_response_id": 7}, "previous_response_id"),
        ({"previous_response_id": "resp_1", "conversation": "conv_1"}, "previous_response_id"),
        ({"previous_response_id": "resp_1", "input": [7]}, "input"),
        ({"background": True, "input": {"role": "user"}}, "input"),
    ],
)
def test_what_is_wrong_is_said_by_name(body: dict[str, Any], param: str) -> None:
    with pytest.raises(BadRequest) as caught:
        read(**body)
    assert caught.value.param == param


def test_a_body_that_needs_no_change_keeps_its_bytes() -> None:
    raw = b'{ "input": "hi",  "model": "m" }'
    assert ResponsesRequest.read(orjson.loads(raw), store=True).effective(raw, []) is raw


_values = st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(max_size=5)


@given(st.dictionaries(st.sampled_from(["model", "temperature", "metadata", "x", *OURS]), _values), st.integers(0, 3))
def test_the_model_server_gets_all_but_what_is_ours(body: dict[str, Any], before: int) -> None:
    request = ResponsesRequest({**body, "input": "hi"}, [{"role": "user"}], True, False, False, None)
    earlier = [{"place": place} for place in range(before)]
    sent = orjson.loads(request.effective(orjson.dumps(request.body), earlier))
    given = sent.pop("input")
    assert given == ([*earlier, {"role": "user"}] if earlier else "hi")
    assert sent == {name: value for name, value in body.items() if name not in OURS}


def test_an_unfinished_response_repeats_its_request() -> None:
    request = read(background=True, instructions="be brief", metadata={"a": "b"}, previous_response_id="resp_0")
    document = unfinished("resp_1", 5.9, "queued", orjson.loads(request.without_input()))
    assert {**document} == document | {
        "id": "resp_1",
        "object": "response",
        "created_at": 5,
        "completed_at": None,
        "status": "queued",
        "output": [],
        "usage": None,
        "error": None,
        "store": True,
        "background": True,
        "instructions": "be brief",
        "metadata": {"a": "b"},
        "previous_response_id": "resp_0",
    }


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (UpstreamBroke("gone"), "server_error"),
        (UpstreamStatus(400, envelope("too long", "invalid_request_error")), "invalid_prompt"),
        (UpstreamStatus(429, envelope("slow down", "rate_limit_error")), "rate_limit_exceeded"),
        (UpstreamStatus(500, envelope("oops", "server_error")), "server_error"),
        (TooMany("slow down"), "rate_limit_exceeded"),
    ],
)
def test_why_a_response_failed_has_a_code_that_sdks_know(error: ProxyError, code: str) -> None:
    assert response_error(error) == {"code": code, "message": error.message}


texts = st.text(max_size=8)
ids = st.uuids().map(lambda id: f"msg_{id.hex}")
user = st.builds(lambda text: {"role": "user", "content": text}, texts)
message = st.builds(
    lambda id, text: {
        "type": "message",
        "id": id,
        "role": "assistant",
        "status": "completed",
        "content": [{"type": "output_text", "text": text, "annotations": [], "logprobs": [{"token": text}]}],
    },
    ids,
    texts,
)
call = st.builds(
    lambda id, text: {"type": "function_call", "id": id, "call_id": f"call_{text}", "name": "f", "arguments": text},
    ids,
    texts,
)
thought = st.builds(
    lambda id, text: {
        "type": "reasoning",
        "id": id,
        "summary": [],
        "content": [{"type": "reasoning_text", "text": text}],
    },
    ids,
    texts,
)
blank = st.builds(lambda id: {"type": "reasoning", "id": id, "summary": []}, ids)
other = st.builds(lambda id: {"type": "web_search_call", "id": id}, ids)
turns = st.lists(st.tuples(st.lists(user, max_size=2), st.lists(message | call | thought | blank | other, max_size=3)))


def test_a_string_is_the_message_it_stands_for() -> None:
    assert items_of("hi") == [{"type": "message", "role": "user", "content": [{"type": "input_text", "text": "hi"}]}]
    assert items_of(None) == []


@given(st.integers() | st.booleans() | st.dictionaries(texts, texts) | st.lists(texts | st.integers(), min_size=1))
def test_input_of_another_form_is_not_understood(value: Any) -> None:
    assert items_of(value) is None


@given(turns)
def test_a_history_says_everything_in_order(conversation: Any) -> None:
    before = json.dumps(conversation)
    items = history(conversation)
    said = [item for own, output in conversation for item in (*own, *output) if "content" in item or "id" in item]
    said = [item for item in said if not (item.get("type") == "reasoning" and "content" not in item)]
    assert [_essence(item) for item in items] == [_essence(item) for item in said]
    assert json.dumps(conversation) == before, "the stored items were changed"


def _essence(item: Any) -> Any:
    """An item without what may be lost of it."""
    essence = {name: value for name, value in item.items() if name != "id"}
    if isinstance(essence.get("content"), list):
        essence["content"] = [
            {name: value for name, value in part.items() if name != "logprobs"} for part in essence["content"]
        ]
    return essence


@given(turns)
def test_the_same_conversation_under_other_ids_is_the_same_history(conversation: Any) -> None:
    renamed = json.loads(json.dumps(conversation))
    for _, output in renamed:
        for item in output:
            if item["type"] != "web_search_call":
                item["id"] = f"{item['id']}x"
    assert history(conversation) == history(renamed)
    named = [item["id"] for item in history(conversation) if "id" in item]
    assert len(named) == len(set(named))


@given(st.lists(user | message | call | other))
def test_shown_items_have_an_id_and_a_type_and_keep_what_they_said(items: Any) -> None:
    listed = listed_items(items, "resp_abc")
    for item, plain in zip(listed, items, strict=True):
        assert item["type"] == plain.get("type", "message")
        assert item["id"] == plain.get("id", item["id"])
        if item["type"] == "message":
            assert isinstance(item["content"], list)
            text = plain["content"] if isinstance(plain["content"], str) else plain["content"][0]["text"]
            assert item["content"][0]["text"] == text
    assert len({item["id"] for item in listed}) == len(listed)


def test_what_an_assistant_said_is_shown_as_output() -> None:
    (item,) = listed_items([{"role": "assistant", "content": "well"}], "resp_abc")
    assert item["content"] == [{"type": "output_text", "text": "well", "annotations": []}]


@pytest.mark.parametrize(
    ("members", "allowed"),
    [
        ({"background": True}, True),
        ({"background": True, "stream": False}, True),
        ({"background": True, "stream": True}, False),
        ({"background": False}, False),
        ({}, False),
    ],
)
@pytest.mark.parametrize("window", ["2h", "8h"])
def test_a_late_window_needs_the_background_and_no_stream(members: dict[str, Any], allowed: bool, window: str) -> None:
    body = {"model": "m", "input": "a", "background_options": {"completion_window": window}, **members}
    if allowed:
        assert ResponsesRequest.read(body, store=True).background
    else:
        with pytest.raises(BadRequest, match=f"'{window}' needs 'background': true"):
            ResponsesRequest.read(body, store=True)
