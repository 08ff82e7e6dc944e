"""Conversations kept on our side: what a model server gets of them, and what a list of items shows."""

import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from llmproxy.wire.conversation import history, items_of, shown

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
    listed = shown(items, "resp_abc")
    for item, plain in zip(listed, items, strict=True):
        assert item["type"] == plain.get("type", "message")
        assert item["id"] == plain.get("id", item["id"])
        if item["type"] == "message":
            assert isinstance(item["content"], list)
            text = plain["content"] if isinstance(plain["content"], str) else plain["content"][0]["text"]
            assert item["content"][0]["text"] == text
    assert len({item["id"] for item in listed}) == len(listed)


def test_what_an_assistant_said_is_shown_as_output() -> None:
    (item,) = shown([{"role": "assistant", "content": "well"}], "resp_abc")
    assert item["content"] == [{"type": "output_text", "text": "well", "annotations": []}]
