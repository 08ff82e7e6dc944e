"""What chat and legacy completions share: broken chunks, flaws, faults, usage; shown on chat."""

import orjson
import pytest

from llmproxy.wire import sse
from llmproxy.wire.chat import CHAT
from llmproxy.wire.chunks import DONE
from llmproxy.wire.dialect import Document, Malformed
from llmproxy.wire.errors import UpstreamBroke
from llmproxy.wire.vocabulary import Reason
from tests.wire.samples import fault_message


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
        CHAT.assemble([sse.frame(data), DONE])


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
    frames = [sse.frame(b'{"error":{"message":"no memory","code":500}}'), DONE]
    assert fault_message(CHAT, frames[0]) == "no memory"
    assert CHAT.flaw(CHAT.assemble(frames)) is Reason.ERROR
    assert fault_message(CHAT, sse.frame(b'{"error":"text"}')) == "text"


@pytest.mark.parametrize(
    "data",
    [b'{"choices":[{"delta":{"content":"an \\"error\\""}}]}', b'{"error":null}', b'x "error"', b"[DONE]"],
)
def test_ordinary_frames_are_no_fault(data: bytes) -> None:
    assert CHAT.fault(sse.frame(data)) is None


def test_our_failure_is_a_fault() -> None:
    frame = CHAT.failure(UpstreamBroke("cut off"))
    assert orjson.loads(sse.data(frame)) == {
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
    assert CHAT.usage_only(sse.frame(data)) is alone
