"""A Responses request as the chat request that stands for it."""

from typing import Any

import pytest

from llmproxy.wire.errors import BadRequest
from llmproxy.wire.responses_to_chat import chat_request


def messages(items: Any, **more: Any) -> Any:
    return chat_request({"model": "m", "input": items, **more})["messages"]


def test_a_string_is_the_users_message_after_the_instructions() -> None:
    assert messages("Hi", instructions="Be brief.") == [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "Hi"},
    ]


def test_parts_become_those_of_chat() -> None:
    parts = [
        {"type": "input_text", "text": "What is it?"},
        {"type": "input_image", "image_url": "data:image/png;base64,AA==", "detail": "low"},
        {"type": "input_file", "filename": "a.pdf", "file_data": "data:application/pdf;base64,AA=="},
    ]
    assert messages([{"role": "user", "content": parts}]) == [
        {
            "role": "user",
            "content": [
                {"type": "text", "text": "What is it?"},
                {"type": "image_url", "image_url": {"url": "data:image/png;base64,AA==", "detail": "low"}},
                {"type": "file", "file": {"filename": "a.pdf", "file_data": "data:application/pdf;base64,AA=="}},
            ],
        }
    ]


def test_a_turn_of_the_assistant_is_one_message() -> None:
    call = {"type": "function_call", "name": "f", "arguments": '{"a":1}', "id": "fc_1"}
    turn = [
        {"role": "user", "content": "Go"},
        {"type": "reasoning", "id": "rs_1", "summary": [], "content": [{"type": "reasoning_text", "text": "hmm"}]},
        {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "I look."}]},
        {**call, "call_id": "c1"},
        {**call, "call_id": "c2"},
        {"type": "function_call_output", "call_id": "c1", "output": "one"},
        {"type": "function_call_output", "call_id": "c2", "output": [{"type": "input_text", "text": "two"}]},
        {"role": "assistant", "content": "Done."},
    ]
    function = {"name": "f", "arguments": '{"a":1}'}
    assert messages(turn) == [
        {"role": "user", "content": "Go"},
        {
            "role": "assistant",
            "content": "I look.",
            "reasoning_content": "hmm",
            "tool_calls": [{"id": id, "type": "function", "function": function} for id in ("c1", "c2")],
        },
        {"role": "tool", "tool_call_id": "c1", "content": "one"},
        {"role": "tool", "tool_call_id": "c2", "content": "two"},
        {"role": "assistant", "content": "Done."},
    ]


def test_settings_take_the_names_of_chat() -> None:
    function = {"name": "f", "parameters": {"type": "object"}, "strict": True}
    schema = {"name": "city", "schema": {"type": "object"}, "strict": True}
    sent = chat_request(
        {
            "model": "m",
            "input": "x",
            "max_output_tokens": 7,
            "temperature": 0.5,
            "reasoning": {"effort": "low", "summary": "auto"},
            "text": {"format": {"type": "json_schema", **schema}, "verbosity": "low"},
            "tools": [{"type": "function", **function}],
            "tool_choice": {"type": "function", "name": "f"},
            "include": ["message.output_text.logprobs"],
            "top_logprobs": 2,
            "store": False,
            "metadata": {"a": "b"},
            "top_k": 3,
        }
    )
    del sent["messages"]
    assert sent == {
        "model": "m",
        "stream": True,
        "stream_options": {"include_usage": True},
        "max_tokens": 7,
        "temperature": 0.5,
        "reasoning_effort": "low",
        "response_format": {"type": "json_schema", "json_schema": schema},
        "verbosity": "low",
        "tools": [{"type": "function", "function": function}],
        "tool_choice": {"type": "function", "function": {"name": "f"}},
        "logprobs": True,
        "top_logprobs": 2,
        "top_k": 3,
    }


@pytest.mark.parametrize(
    ("more", "param"),
    [
        ({"tools": [{"type": "web_search"}]}, "tools[0]"),
        ({"tool_choice": {"type": "file_search"}}, "tool_choice"),
        ({"conversation": "conv_1"}, "conversation"),
        ({"previous_response_id": "resp_1"}, "previous_response_id"),
        ({"prompt": {"id": "p"}}, "prompt"),
        ({"input": 5}, "input"),
        ({"input": [{"type": "item_reference", "id": "msg_1"}]}, "input[0]"),
        ({"input": [{"role": "user", "content": [{"type": "input_image", "file_id": "f"}]}]}, "input[0].content[0]"),
        ({"input": [{"role": "assistant", "content": [{"type": "odd"}]}]}, "input[0].content[0]"),
    ],
)
def test_what_chat_cannot_express_is_refused_by_name(more: dict[str, Any], param: str) -> None:
    with pytest.raises(BadRequest) as refused:
        chat_request({"model": "m", "input": "x", **more})
    assert refused.value.param == param
