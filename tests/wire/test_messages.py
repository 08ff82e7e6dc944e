"""Answers in Anthropic's shape."""

import orjson
import pytest

from llmproxy.wire.dialect import Dialect
from llmproxy.wire.documents import Document, Malformed
from llmproxy.wire.errors import UpstreamBroke
from llmproxy.wire.exchange import Usage
from llmproxy.wire.formats.messages import MESSAGES
from llmproxy.wire.framing import sse_event, sse_frame
from llmproxy.wire.vocabulary import Reason
from tests.wire.samples import fault_message, sample


def stream(*events: Document) -> list[bytes]:
    return [sse_frame(orjson.dumps(event), str(event["type"]).encode()) for event in events]


def test_it_is_a_dialect() -> None:
    dialect: Dialect = MESSAGES
    assert not dialect.both
    with pytest.raises(Malformed):
        dialect.render({})


def test_a_tool_call_of_llamacpp() -> None:
    frames = sample("llamacpp_messages_tool_call")
    assert [MESSAGES.terminal(frame) for frame in frames] == [False] * (len(frames) - 1) + [True]
    document = MESSAGES.assemble(frames)
    assert document["content"] == [
        {
            "type": "tool_use",
            "id": "GzoylNApSyogOWJYhOMFmAq18htIIMX3",
            "name": "get_weather",
            "input": {"city": "Rome"},
        }
    ]
    assert document["stop_reason"] == "tool_use"
    assert document["usage"] == {"cache_read_input_tokens": 378, "input_tokens": 1, "output_tokens": 31}
    assert MESSAGES.usage(document) == Usage(1, 31)
    assert MESSAGES.flaw(document) is None


def test_blocks_of_every_kind() -> None:
    frames = stream(
        {"type": "message_start", "message": {"id": "m", "content": [], "stop_reason": None}},
        {"type": "ping"},
        {"type": "content_block_start", "index": 0, "content_block": {"type": "thinking", "thinking": ""}},
        {"type": "content_block_delta", "index": 0, "delta": {"type": "thinking_delta", "thinking": "hm"}},
        {"type": "content_block_delta", "index": 0, "delta": {"type": "signature_delta", "signature": "s"}},
        {"type": "content_block_start", "index": 1, "content_block": {"type": "text", "text": ""}},
        {"type": "content_block_delta", "index": 1, "delta": {"type": "text_delta", "text": "a"}},
        {
            "type": "content_block_delta",
            "index": 1,
            "delta": {"type": "citations_delta", "citation": {"c": 1}},
        },
        {"type": "content_block_delta", "index": 1, "delta": {"type": "text_delta", "text": "🦙"}},
        {"type": "content_block_start", "index": 2, "content_block": {"type": "tool_use", "input": {}}},
        {
            "type": "content_block_delta",
            "index": 2,
            "delta": {"type": "input_json_delta", "partial_json": '{"cut'},
        },
        {"type": "message_delta", "delta": {"stop_reason": "max_tokens"}, "usage": {"output_tokens": 3}},
        {"type": "message_stop"},
    )
    assert MESSAGES.assemble(frames) == {
        "id": "m",
        "content": [
            {"type": "thinking", "thinking": "hm", "signature": "s"},
            {"type": "text", "text": "a🦙", "citations": [{"c": 1}]},
            {"type": "tool_use", "input": {}},
        ],
        "stop_reason": "max_tokens",
        "usage": {"output_tokens": 3},
    }


@pytest.mark.parametrize(
    "event",
    [
        {"type": "message_stop"},
        {"type": "message_start"},
        {"type": "content_block_start", "content_block": {}},
        {"type": "content_block_delta", "index": 0},
    ],
)
def test_what_is_no_message_is_malformed(event: Document) -> None:
    with pytest.raises(Malformed):
        MESSAGES.assemble(stream(event))


@pytest.mark.parametrize(
    ("document", "reason"),
    [
        ({"type": "error", "error": {"message": "no"}}, Reason.ERROR),
        ({"content": [], "stop_reason": None}, Reason.INCOMPLETE),
        ({"stop_reason": "end_turn"}, Reason.MALFORMED),
        ({"content": [], "stop_reason": "end_turn"}, None),
    ],
)
def test_flaws(document: Document, reason: Reason | None) -> None:
    assert MESSAGES.flaw(document) is reason


def test_our_failure_is_a_fault() -> None:
    frame = MESSAGES.failure(UpstreamBroke("cut off"), "req_1")
    assert sse_event(frame) == b"error"
    assert fault_message(MESSAGES, frame) == "cut off"
    assert fault_message(MESSAGES, sse_frame(b'{"error":{"message":"bare"}}')) == "bare"
    assert MESSAGES.fault(sse_frame(b'{"type":"content_block_delta","delta":{"text":"\\"error\\""}}')) is None
