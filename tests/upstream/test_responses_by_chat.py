"""Responses by chat: the request, and the stream."""

from typing import Any

import orjson
import pytest

from llmproxy.upstream.responses_by_chat import ChatTranslation, chat_request
from llmproxy.wire.documents import Document
from llmproxy.wire.errors import BadRequest
from llmproxy.wire.formats.chunks import DONE
from llmproxy.wire.formats.responses import RESPONSES
from llmproxy.wire.framing import sse_data, sse_frame
from tests.upstream.test_responses_client import serving

REQUEST = {"model": "m", "input": "x", "metadata": {"a": "b"}}


def chunk(delta: Document, finish: str | None = None, **more: Any) -> bytes:
    choice = {"index": 0, "delta": delta, "finish_reason": finish, **more}
    return sse_frame(orjson.dumps({"id": "chatcmpl-1", "created": 5, "model": "m-1", "choices": [choice]}))


def call(arguments: Any, **members: Any) -> Document:
    name = members.pop("name", None)
    function = {"arguments": arguments} | ({"name": name} if name else {})
    return {"type": "function", "function": function, **members}


USAGE = sse_frame(
    orjson.dumps(
        {
            "choices": [],
            "usage": {
                "prompt_tokens": 5,
                "completion_tokens": 7,
                "total_tokens": 12,
                "prompt_tokens_details": {"cached_tokens": 2},
                "completion_tokens_details": {"reasoning_tokens": 3},
            },
        }
    )
)

THINKING_CALLING = [
    chunk({"role": "assistant", "content": None}),
    chunk({"reasoning_content": "hm"}),
    chunk({"reasoning_content": "m"}),
    chunk({"content": "I "}),
    chunk({"content": "look."}),
    chunk({"tool_calls": [call("", index=0, id="c1", name="f")]}),
    chunk({"tool_calls": [call('{"a":', index=0)]}),
    chunk({"tool_calls": [call("1}", index=0)]}),
    chunk({"tool_calls": [call("{}", index=1, id="c2", name="g")]}),
    chunk({}, "tool_calls"),
    USAGE,
    DONE,
]

STREAMS = {
    "text": [chunk({"role": "assistant", "content": "Hel"}), chunk({"content": "lo"}), chunk({}, "stop"), USAGE, DONE],
    "thinking and calling": THINKING_CALLING,
    "cut by the limit": [chunk({"content": "Hel"}, "length"), USAGE, DONE],
    "nothing": [chunk({}, "stop"), DONE],
    "a refusal": [chunk({"refusal": "No."}), chunk({}, "stop"), DONE],
    "a whole message": [
        sse_frame(b'{"choices":[{"index":0,"message":{"role":"assistant","content":"Hi"},"finish_reason":"stop"}]}'),
        DONE,
    ],
}


def translated(frames: list[bytes]) -> list[bytes]:
    translation = ChatTranslation(REQUEST, clock=lambda: 50.0)
    return [event for frame in frames for event in translation(frame)]


def answer(frames: list[bytes]) -> Document:
    return RESPONSES.assemble(translated(frames))


@pytest.mark.parametrize("name", STREAMS)
def test_the_official_client_reads_it(name: str) -> None:
    frames = translated(STREAMS[name])
    document = RESPONSES.assemble(frames)
    with serving(frames) as client, client.responses.stream(model="m", input="x") as stream:
        events: list[Any] = list(stream)
    response = events[-1].response
    assert [event.sequence_number for event in events] == list(range(len(events)))
    assert response.id == document["id"]
    assert [item.to_dict()["id"] for item in response.output] == [item["id"] for item in document["output"]]


def test_everything_of_the_answer_is_there() -> None:
    response = answer(THINKING_CALLING)
    thoughts, message, first, second = response["output"]
    assert thoughts["content"] == [{"type": "reasoning_text", "text": "hmm"}]
    assert message["content"][0]["text"] == "I look."
    assert (first["call_id"], first["name"], first["arguments"]) == ("c1", "f", '{"a":1}')
    assert (second["call_id"], second["name"], second["arguments"]) == ("c2", "g", "{}")
    assert response["usage"] == {
        "input_tokens": 5,
        "input_tokens_details": {"cached_tokens": 2},
        "output_tokens": 7,
        "output_tokens_details": {"reasoning_tokens": 3},
        "total_tokens": 12,
    }
    assert (response["status"], response["model"], response["created_at"]) == ("completed", "m-1", 50)
    assert response["metadata"] == {"a": "b"}


def test_an_answer_cut_by_the_limit_is_incomplete() -> None:
    response = answer(STREAMS["cut by the limit"])
    assert (response["status"], response["incomplete_details"]) == ("incomplete", {"reason": "max_output_tokens"})


@pytest.mark.parametrize(
    "calls",
    [
        [call("{}", index=0, id="c1", name="f"), call("{}", index=0, id="c2", name="g")],
        [call("{}", id="c1", name="f"), call("{}", id="c2", name="g")],
        [call("{}", index=None, name="f"), call("{}", index=None, name="g")],
        [call({}, index=0, id="c1", name="f"), call({}, index=1, id="c1", name="g")],
    ],
    ids=["one index", "no index", "null index, no ids", "objects under one id"],
)
@pytest.mark.parametrize("together", [False, True])
def test_calls_are_told_apart(calls: list[Document], together: bool) -> None:
    chunks = [chunk({"tool_calls": calls})] if together else [chunk({"tool_calls": [each]}) for each in calls]
    output = answer([*chunks, chunk({}, "tool_calls"), DONE])["output"]
    assert [(item["name"], item["arguments"]) for item in output] == [("f", "{}"), ("g", "{}")]
    assert len({item["call_id"] for item in output}) == 2


@pytest.mark.parametrize(
    "frames",
    [
        [chunk({"content": "x"}), DONE],
        [chunk({"content": "x"}, "error"), DONE],
        [chunk({"content": "x"}), sse_frame(b'{"error":{"message":"out of memory"}}')],
        [chunk({"content": "x"}), sse_frame(b"{")],
    ],
    ids=["no finish reason", "finished with an error", "an error", "no JSON"],
)
def test_a_failure_is_told(frames: list[bytes]) -> None:
    last = orjson.loads(sse_data(translated(frames)[-1]))
    assert last["type"] == "response.failed"
    assert last["response"]["error"]["message"]


def test_log_probabilities_go_with_their_text() -> None:
    logprobs = [{"token": "x", "logprob": -0.5, "bytes": [120], "top_logprobs": []}]
    frames = translated([chunk({"content": "x"}, logprobs={"content": logprobs}), chunk({}, "stop"), DONE])
    events = [orjson.loads(sse_data(frame)) for frame in frames]
    assert [event["logprobs"] for event in events if event["type"] == "response.output_text.delta"] == [logprobs]
    assert RESPONSES.assemble(frames)["output"][0]["content"][0]["logprobs"] == logprobs


def calls(frames: list[bytes]) -> list[tuple[str, str]]:
    return [(item["name"], item["arguments"]) for item in answer(frames)["output"]]


@pytest.mark.parametrize("id", [{}, {"id": None}, {"id": ""}, {"id": "c1"}], ids=str)
def test_calls_that_nothing_tells_apart_but_their_names(id: Document) -> None:
    pieces = [call('{"a":', index=0, name="f", **id), call("1}", index=0, **id), call("{}", index=0, name="g", **id)]
    found = calls([*(chunk({"tool_calls": [piece]}) for piece in pieces), chunk({}, "tool_calls"), DONE])
    assert found == [("f", '{"a":1}'), ("g", "{}")]


def test_a_name_that_is_repeated_begins_no_call() -> None:
    pieces = [call(text, index=0, id="c1", name="f") for text in ("", '{"a":', "1}", "")]
    found = calls([*(chunk({"tool_calls": [piece]}) for piece in pieces), chunk({}, "tool_calls"), DONE])
    assert found == [("f", '{"a":1}')]


def test_calls_that_come_by_turns() -> None:
    pieces = [call('{"a"', index=0, id="c1", name="f"), call("{", index=1, id="c2", name="g")]
    pieces += [call(":1}", index=0), call("}", index=1)]
    found = calls([*(chunk({"tool_calls": [piece]}) for piece in pieces), chunk({}, "tool_calls"), DONE])
    assert found == [("f", '{"a":1}'), ("g", "{}")]


def test_a_content_of_parts_is_all_told() -> None:
    thought = {"type": "thinking", "thinking": [{"type": "text", "text": "hm"}]}
    parts = [{"type": "text", "text": "Hel"}, "lo"]
    output = answer([chunk({"content": [thought]}), chunk({"content": parts}), chunk({}, "stop"), DONE])["output"]
    assert [item["content"][0]["text"] for item in output] == ["hm", "Hello"]
    assert [item["type"] for item in output] == ["reasoning", "message"]


def test_a_null_is_no_chunk() -> None:
    output = answer([sse_frame(b"null"), chunk({"content": "x"}, "stop"), DONE])["output"]
    assert output[0]["content"][0]["text"] == "x"


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
