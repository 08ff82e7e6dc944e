"""Chat answers: assembled and rendered."""

import json
from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmproxy.wire.dialect import Dialect, Lossy
from llmproxy.wire.documents import Document
from llmproxy.wire.exchange import Usage
from llmproxy.wire.formats.chat import CHAT
from llmproxy.wire.formats.chunks import DONE
from llmproxy.wire.framing import sse_data, sse_frame
from tests.wire.samples import sample
from tests.wire.strategies import chat_documents, chat_streams


def stream(*choices: list[dict[str, Any]], **members: Any) -> list[bytes]:
    """A stream whose chunks carry these lists of choices."""
    return [*(sse_frame(orjson.dumps({"id": "1", "choices": entry, **members})) for entry in choices), DONE]


def message(*deltas: dict[str, Any]) -> dict[str, Any]:
    frames = stream(*([{"index": 0, "delta": delta}] for delta in deltas))
    found = CHAT.assemble(frames)["choices"][0]["message"]
    assert isinstance(found, dict)
    return found


def doubted(frames: list[bytes]) -> Document:
    """What frames seem to amount to that only their server could put together."""
    with pytest.raises(Lossy) as raised:
        CHAT.assemble(frames)
    return raised.value.document


def chunks(frames: list[bytes]) -> list[Document]:
    assert frames[-1] == DONE
    return [orjson.loads(sse_data(frame)) for frame in frames[:-1]]


def test_it_is_a_dialect() -> None:
    dialect: Dialect = CHAT
    assert dialect.both
    with pytest.raises(AttributeError):
        dialect.name = "other"


@given(document=chat_documents)
@settings(max_examples=120, deadline=None)
def test_a_rendered_answer_assembles_to_itself(document: Document) -> None:
    assert CHAT.assemble(CHAT.render(document)) == document


@given(frames=chat_streams())
@settings(max_examples=120, deadline=None)
def test_an_assembled_stream_renders_to_itself(frames: list[bytes]) -> None:
    try:
        document = CHAT.assemble(frames)
    except Lossy as lossy:
        document = lossy.document
    else:
        assert CHAT.assemble(CHAT.render(document)) == document
    assert CHAT.flaw(document) is None


@given(document=chat_documents)
@settings(max_examples=60, deadline=None)
def test_a_rendered_stream_has_the_order_helpers_need(document: Document) -> None:
    frames = CHAT.render(document)
    assert [CHAT.terminal(frame) for frame in frames] == [False] * (len(frames) - 1) + [True]
    parts = [choice for chunk in chunks(frames) for choice in chunk["choices"]]
    assert [part["index"] for part in parts] == sorted(part["index"] for part in parts)
    for choice in document["choices"]:
        own = [part for part in parts if part["index"] == choice["index"]]
        assert ["role" in part["delta"] for part in own] == [True] + [False] * (len(own) - 1)
        assert [part["finish_reason"] for part in own] == [None] * (len(own) - 1) + [choice["finish_reason"]]
        assert own[-1]["delta"] == {}
    shown = [frame for frame in frames if not CHAT.usage_only(frame)]
    assert len(frames) - len(shown) == ("usage" in document)


def test_rendering_word_for_word() -> None:
    call = {"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    document = {
        "id": "1",
        "object": "chat.completion",
        "created": 2,
        "model": "m",
        "choices": [
            {
                "index": 0,
                "message": {
                    "role": "assistant",
                    "content": "é🦙",
                    "reasoning_content": "hm",
                    "tool_calls": [call],
                },
                "logprobs": {"content": []},
                "finish_reason": "stop",
                "x": 1,
            }
        ],
        "usage": {"prompt_tokens": 1},
        "timings": {"n": 1},
    }
    header = {"id": "1", "object": "chat.completion.chunk", "created": 2, "model": "m"}

    def part(delta: dict[str, Any], finish: str | None = None, **more: Any) -> Document:
        return {"index": 0, "delta": delta, "finish_reason": finish, **more}

    opened = {"index": 0, "id": "c", "type": "function", "function": {"name": "f", "arguments": ""}}
    assert chunks(CHAT.render(document)) == [
        header | {"choices": [part({"role": "assistant", "content": None})]},
        header | {"choices": [part({"reasoning_content": "hm"})]},
        header | {"choices": [part({"content": "é🦙"}, logprobs={"content": []})]},
        header | {"choices": [part({"tool_calls": [opened]})]},
        header | {"choices": [part({"tool_calls": [{"index": 0, "function": {"arguments": "{}"}}]})]},
        header | {"choices": [part({}, "stop", x=1)]},
        header | {"choices": [], "usage": {"prompt_tokens": 1}, "timings": {"n": 1}},
    ]


def _spaced(frames: list[bytes]) -> list[bytes]:
    """The same events, of which no two in a row have the same bytes around a text."""
    return [
        frame.replace(b"data: ", b"data: " + b" " * (1 + number % 2), 1) if frame != DONE else frame
        for number, frame in enumerate(frames)
    ]


@given(
    texts=st.lists(st.text(max_size=12) | st.sampled_from(["1", "m", "[DONE]", '"', "\\", "é", "\u2028"]), max_size=12),
    spoilt=st.dictionaries(
        st.integers(0, 11), st.sampled_from(["index", "usage", "id", "finish", "member", "escaped"])
    ),
    escapes=st.booleans(),
)
@settings(max_examples=300, deadline=None)
def test_texts_alone_are_read_as_whole_chunks_are(texts: list[str], spoilt: dict[int, str], escapes: bool) -> None:
    frames = []
    for number, text in enumerate(["", *texts]):
        choice: dict[str, Any] = {"index": 0, "delta": {"content": text}, "finish_reason": None}
        chunk: dict[str, Any] = {"id": "1", "model": "m", "choices": [choice]}
        match spoilt.get(number):
            case "index":
                choice["index"] = 1
            case "usage":
                chunk["usage"] = {"prompt_tokens": number, "completion_tokens": 1}
            case "id":
                chunk["id"] = text
            case "finish":
                choice["finish_reason"] = "stop"
            case "member":
                chunk["content"] = text
        dumped = json.dumps(chunk) if escapes or spoilt.get(number) == "escaped" else orjson.dumps(chunk).decode()
        frames.append(sse_frame(dumped.encode()))
    assert _assembled([*frames, DONE]) == _assembled(_spaced([*frames, DONE]))


def _assembled(frames: list[bytes]) -> tuple[Document, str]:
    try:
        return CHAT.assemble(frames), ""
    except Lossy as lossy:
        return lossy.document, str(lossy)


def test_two_choices_of_llamacpp() -> None:
    frames = sample("llamacpp_chat_two_choices")
    document = doubted(frames)
    assert [choice["index"] for choice in document["choices"]] == [0, 1]
    assert [choice["message"]["content"] for choice in document["choices"]] == ["Hello there!", "hi there,"]
    assert [len(choice["logprobs"]["content"]) for choice in document["choices"]] == [3, 3]
    assert document["object"] == "chat.completion"
    # one usage chunk per choice came: the completions are summed, the prompt counts once
    assert document["usage"] == {
        "completion_tokens": 6,
        "prompt_tokens": 31,
        "total_tokens": 37,
        "prompt_tokens_details": {"cached_tokens": 24},
    }
    assert document["timings"] == orjson.loads(sse_data(frames[-2]))["timings"]
    assert CHAT.usage(document) == Usage(31, 6)
    assert CHAT.flaw(document) is None


def test_a_tool_call_of_llamacpp() -> None:
    choice = CHAT.assemble(sample("llamacpp_chat_tool_call"))["choices"][0]
    assert choice["finish_reason"] == "tool_calls"
    assert choice["message"] == {
        "role": "assistant",
        "content": None,
        "tool_calls": [
            {
                "id": "RCOvbBT3XI634ioS5x7DpKQNhHKyb0Zl",
                "type": "function",
                "function": {"name": "get_weather", "arguments": '{"city": "Rome"}'},
            }
        ],
    }


def test_an_empty_message_has_an_empty_content() -> None:
    assert message({"role": "assistant", "content": None}) == {"role": "assistant", "content": ""}
    assert message({})["role"] == "assistant"


def test_a_refusal_leaves_the_content_null() -> None:
    assert message({"role": "assistant", "content": None, "refusal": None}, {"refusal": "N"}, {"refusal": "o"}) == {
        "role": "assistant",
        "content": None,
        "refusal": "No",
    }


def test_texts_are_joined_under_the_names_they_came_under() -> None:
    found = message(
        {"reasoning": "a"}, {"reasoning": "b"}, {"reasoning_content": "c"}, {"content": "d"}, {"content": "e"}
    )
    assert found == {"role": "assistant", "reasoning": "ab", "reasoning_content": "c", "content": "de"}


def test_repeated_names_of_a_tool_call_count_once() -> None:
    call = {"index": 0, "id": "a", "type": "function", "function": {"name": "f", "arguments": "1"}}
    found = message({"tool_calls": [call]}, {"tool_calls": [call]})
    assert found["tool_calls"] == [{"id": "a", "type": "function", "function": {"name": "f", "arguments": "11"}}]


def test_tool_calls_without_an_index_count_by_place() -> None:
    found = message({"tool_calls": [{"id": "a"}, {"id": "b"}]})
    assert found["tool_calls"] == [{"id": "a"}, {"id": "b"}]


def test_audio_and_the_old_function_call() -> None:
    found = message(
        {"audio": {"id": "a", "transcript": "x"}},
        {"audio": {"data": "QQ==", "transcript": "y"}},
        {"audio": {"id": "a", "data": "QQ==", "expires_at": 9}},
        {"function_call": {"name": "f", "arguments": "{"}},
        {"function_call": {"arguments": "}"}},
    )
    assert found["audio"] == {"id": "a", "transcript": "xy", "data": "QQ==QQ==", "expires_at": 9}
    assert found["function_call"] == {"name": "f", "arguments": "{}"}
    assert found["content"] is None


def test_unknown_members_with_several_values_are_doubted_and_annotations_grow() -> None:
    frames = [
        sse_frame(
            orjson.dumps(
                {
                    "id": id,
                    "x": id,
                    "obfuscation": "pad",
                    "system_fingerprint": fingerprint,
                    "choices": [{"index": 0, "y": id, "delta": {"z": id, "annotations": [id]}}],
                }
            )
        )
        for id, fingerprint in (("1", "fp"), ("2", None))
    ]
    assert doubted([*frames, DONE]) == {
        "id": "1",
        "object": "chat.completion",
        "x": "2",
        "system_fingerprint": "fp",
        "choices": [
            {
                "index": 0,
                "y": "2",
                "finish_reason": None,
                "message": {"role": "assistant", "content": "", "z": "2", "annotations": ["1", "2"]},
            }
        ],
    }


def test_a_running_usage_gives_way_to_the_one_beside_no_choices() -> None:
    part = [{"index": 0, "delta": {}, "finish_reason": "stop"}]
    zeros = {"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0}
    real = {"prompt_tokens": 1, "completion_tokens": 2, "total_tokens": 3}
    frames = [*stream(part, usage=zeros)[:-1], *stream([], usage=real)]
    assert CHAT.assemble(frames)["usage"] == real
    assert CHAT.assemble(stream(part, usage=real))["usage"] == real
    assert "usage" not in CHAT.assemble(stream(part, usage=None))


def test_details_of_summed_completions_are_summed() -> None:
    first = {"prompt_tokens": 1, "completion_tokens": 2, "completion_tokens_details": {"reasoning_tokens": 1}}
    frames = [*stream([], usage=first)[:-1], *stream([], usage=first)]
    assert doubted(frames)["usage"] == {
        "prompt_tokens": 1,
        "completion_tokens": 4,
        "total_tokens": 5,
        "completion_tokens_details": {"reasoning_tokens": 2},
    }


def test_what_llamacpp_holds_back_at_the_end_is_not_in_its_stream() -> None:
    told = [{"index": 0, "delta": {"content": "a"}}]
    cut = [{"index": 0, "delta": {}, "finish_reason": "length"}]
    assert (
        CHAT.assemble(stream(told, told, cut, timings={"predicted_n": 2}))["choices"][0]["message"]["content"] == "aa"
    )
    assert doubted(stream(told, told, cut, timings={"predicted_n": 3}))
    # a stop word is not told in either form
    stopped = [{"index": 0, "delta": {}, "finish_reason": "stop"}]
    assert CHAT.assemble(stream(told, stopped, timings={"predicted_n": 3}))


def test_tool_calls_that_are_no_list_are_doubted() -> None:
    doubted(stream([{"index": 0, "delta": {"tool_calls": {"index": 0, "id": "a"}}, "finish_reason": "tool_calls"}]))
