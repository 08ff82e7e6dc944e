"""A chat stream as the Responses stream that stands for it."""

from typing import Any

import orjson
import pytest

from llmproxy.wire import sse
from llmproxy.wire.chat_to_responses import ChatTranslation
from llmproxy.wire.chunks import DONE
from llmproxy.wire.dialect import Document
from llmproxy.wire.responses import RESPONSES
from tests.wire.test_responses_client import serving

REQUEST = {"model": "m", "input": "x", "metadata": {"a": "b"}}


def chunk(delta: Document, finish: str | None = None, **more: Any) -> bytes:
    choice = {"index": 0, "delta": delta, "finish_reason": finish, **more}
    return sse.frame(orjson.dumps({"id": "chatcmpl-1", "created": 5, "model": "m-1", "choices": [choice]}))


def call(arguments: Any, **members: Any) -> Document:
    name = members.pop("name", None)
    function = {"arguments": arguments} | ({"name": name} if name else {})
    return {"type": "function", "function": function, **members}


USAGE = sse.frame(
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
        sse.frame(b'{"choices":[{"index":0,"message":{"role":"assistant","content":"Hi"},"finish_reason":"stop"}]}'),
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
        [chunk({"content": "x"}), sse.frame(b'{"error":{"message":"out of memory"}}')],
        [chunk({"content": "x"}), sse.frame(b"{")],
    ],
    ids=["no finish reason", "finished with an error", "an error", "no JSON"],
)
def test_a_failure_is_told(frames: list[bytes]) -> None:
    last = orjson.loads(sse.data(translated(frames)[-1]))
    assert last["type"] == "response.failed"
    assert last["response"]["error"]["message"]


def test_log_probabilities_go_with_their_text() -> None:
    logprobs = [{"token": "x", "logprob": -0.5, "bytes": [120], "top_logprobs": []}]
    frames = translated([chunk({"content": "x"}, logprobs={"content": logprobs}), chunk({}, "stop"), DONE])
    events = [orjson.loads(sse.data(frame)) for frame in frames]
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
    output = answer([sse.frame(b"null"), chunk({"content": "x"}, "stop"), DONE])["output"]
    assert output[0]["content"][0]["text"] == "x"
