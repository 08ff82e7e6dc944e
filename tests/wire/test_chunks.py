"""What chat and legacy completions share: broken chunks, flaws, faults, usage; shown on chat."""

from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmproxy.wire.documents import Document, Malformed
from llmproxy.wire.errors import UpstreamBroke
from llmproxy.wire.formats.chat import CHAT
from llmproxy.wire.formats.chunks import DONE, UsageFilter
from llmproxy.wire.framing import sse_data, sse_frame
from llmproxy.wire.vocabulary import Reason
from tests.wire.samples import fault_message
from tests.wire.strategies import chat_documents


@pytest.mark.parametrize(
    "data",
    [
        b"nonsense",
        b"[1]",
        b'{"choices":1}',
        b'{"choices":[1]}',
        b'{"choices":[{"index":"a"}]}',
        b'{"choices":[{"delta":1}]}',
        b'{"choices":[{"delta":{"tool_calls":[1]}}]}',
        b'{"choices":[{"delta":{"tool_calls":[{"index":"a"}]}}]}',
    ],
)
def test_what_is_no_chunk_is_malformed(data: bytes) -> None:
    with pytest.raises(Malformed):
        CHAT.assemble([sse_frame(data), DONE])


def test_a_stream_without_chunks_is_malformed() -> None:
    with pytest.raises(Malformed):
        CHAT.assemble([DONE])


@pytest.mark.parametrize(
    ("document", "reason"),
    [
        ({"error": {"message": "no"}, "choices": [{"message": {}, "finish_reason": "stop"}]}, Reason.ERROR),
        ({"choices": [{"error": "no", "message": {}, "finish_reason": "stop"}]}, Reason.ERROR),
        ({"choices": []}, Reason.MALFORMED),
        ({}, Reason.MALFORMED),
        ({"choices": ["x"]}, Reason.MALFORMED),
        ({"choices": [{"finish_reason": "stop"}]}, Reason.MALFORMED),
        ({"choices": [{"message": {}, "finish_reason": "stop"}, {"message": {}}]}, Reason.INCOMPLETE),
        ({"error": None, "choices": [{"message": {}, "finish_reason": "stop"}]}, None),
    ],
)
def test_flaws(document: Document, reason: Reason | None) -> None:
    assert CHAT.flaw(document) is reason


def test_an_error_in_the_stream_is_a_fault_and_a_flaw() -> None:
    frames = [sse_frame(b'{"error":{"message":"no memory","code":500}}'), DONE]
    assert fault_message(CHAT, frames[0]) == "no memory"
    assert CHAT.flaw(CHAT.assemble(frames)) is Reason.ERROR
    assert fault_message(CHAT, sse_frame(b'{"error":"text"}')) == "text"


@pytest.mark.parametrize(
    "data",
    [b'{"choices":[{"delta":{"content":"an \\"error\\""}}]}', b'{"error":null}', b'x "error"', b"[DONE]"],
)
def test_ordinary_frames_are_no_fault(data: bytes) -> None:
    assert CHAT.fault(sse_frame(data)) is None


def test_our_failure_is_a_fault() -> None:
    frame = CHAT.failure(UpstreamBroke("cut off"))
    assert orjson.loads(sse_data(frame)) == {
        "error": {"message": "cut off", "type": "server_error", "param": None, "code": "upstream_error"}
    }
    assert fault_message(CHAT, frame) == "cut off"
    assert not CHAT.terminal(frame)


@pytest.mark.parametrize(
    ("data", "alone"),
    [
        (b'{"choices":[],"usage":{"total_tokens":1}}', True),
        (b'{"choices": [], "usage": {"total_tokens":1}}', True),
        (b'{"choices":[],"usage":null}', False),
        (b'{"choices":[{"delta":{}}],"usage":{"total_tokens":1}}', False),
        (b'{"choices":[]}', False),
    ],
)
def test_frames_for_those_who_asked_for_usage(data: bytes, alone: bool) -> None:
    assert CHAT.usage_only(sse_frame(data)) is alone


Chunk = dict[str, Any]

HEAD = {"id": "1", "object": "chat.completion.chunk", "created": 1, "model": "m", "system_fingerprint": "f"}
COUNTS = {"prompt_tokens": 1, "completion_tokens": 2, "total_tokens": 3}
ZEROS = dict.fromkeys(COUNTS, 0)


def chunk(text: str, finish: str | None = None, **members: Any) -> Chunk:
    return HEAD | {"choices": [{"index": 0, "delta": {"content": text}, "finish_reason": finish}], **members}


def shown(*chunks: Chunk) -> list[Chunk]:
    frames = [*(sse_frame(orjson.dumps(each)) for each in chunks), DONE]
    one = UsageFilter()
    # frame by frame, as they come
    seen = [frame for sent in frames for frame in one.feed([sent])] + one.close()
    other = UsageFilter()
    assert other.feed(frames) + other.close() == seen
    assert seen[-1] == DONE
    return [orjson.loads(sse_data(frame)) for frame in seen[:-1]]


USAGE = HEAD | {"choices": [], "usage": COUNTS}


@pytest.mark.parametrize("trace", [None, ZEROS, COUNTS])
def test_no_chunk_shows_that_usage_was_asked_for(trace: Any) -> None:
    sent = [chunk("a", usage=trace), chunk("b", usage=trace, obfuscation="x"), USAGE]
    assert shown(*sent) == [chunk("a"), chunk("b", obfuscation="x")]


@pytest.mark.parametrize("trace", [None, ZEROS])
def test_nor_does_the_last_one_of_a_choice(trace: Any) -> None:
    assert shown(chunk("a"), chunk("", "stop", usage=trace), USAGE) == [chunk("a"), chunk("", "stop")]


def test_real_counts_on_the_last_one_of_a_choice_are_there_unasked() -> None:
    sent = [chunk("a"), chunk("", "stop", usage=COUNTS, timings={"n": 1})]
    assert shown(*sent) == sent


def test_timings_beside_the_usage_go_to_the_chunk_before() -> None:
    timings = {"timings": {"predicted_n": 2}}
    assert shown(chunk("a"), chunk("", "stop"), USAGE | timings) == [chunk("a"), chunk("", "stop", **timings)]


def test_a_first_chunk_without_choices_stays() -> None:
    first = {"choices": [], "id": "", "model": "", "prompt_filter_results": [{"prompt_index": 0}]}
    assert shown(first | {"usage": None}, chunk("a"), USAGE) == [first, chunk("a")]


def test_words_in_a_text_are_no_usage() -> None:
    sent = [chunk('{"usage":null} "finish_reason":"stop" "usage"'), chunk('x","usage":null}', "stop")]
    assert shown(*sent) == sent


@given(document=chat_documents, at=st.integers(0, 9))
@settings(max_examples=60, deadline=None)
def test_what_was_shown_amounts_to_the_same_but_for_the_usage(document: Chunk, at: int) -> None:
    frames = CHAT.render(document)
    filter = UsageFilter()
    seen = filter.feed(frames[:at]) + filter.feed(frames[at:]) + filter.close()
    assert CHAT.assemble(seen) == {name: value for name, value in document.items() if name != "usage"}
