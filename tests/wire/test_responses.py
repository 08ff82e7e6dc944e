"""Responses: the standard order of events, and how answers and events are judged."""

import copy
from typing import Any

import orjson
import pytest

from llmproxy.wire.dialect import Dialect
from llmproxy.wire.documents import Document, Malformed
from llmproxy.wire.errors import UpstreamBroke
from llmproxy.wire.exchange import Usage
from llmproxy.wire.formats.responses import RESPONSES
from llmproxy.wire.framing import sse_data, sse_event, sse_frame
from llmproxy.wire.vocabulary import Reason
from tests.wire.samples import fault_message

TEXT = {"type": "output_text", "text": "é🦙", "annotations": [{"type": "x"}], "logprobs": [{"token": "é"}]}
MESSAGE = {"id": "msg_1", "type": "message", "role": "assistant", "status": "completed", "content": [TEXT]}
CALL = {
    "id": "fc_1",
    "type": "function_call",
    "status": "completed",
    "call_id": "call_1",
    "name": "f",
    "arguments": "{}",
}
REASONING = {
    "id": "rs_1",
    "type": "reasoning",
    "summary": [{"type": "summary_text", "text": "short"}],
    "content": [{"type": "reasoning_text", "text": "long"}],
}
SEARCH = {"id": "ws_1", "type": "web_search_call", "status": "completed"}
USAGE = {"input_tokens": 3, "output_tokens": 2, "total_tokens": 5}


def response(*output: Document, **members: Any) -> Document:
    return {
        "id": "resp_1",
        "object": "response",
        "created_at": 7,
        "status": "completed",
        "model": "m",
        "output": list(output),
        "usage": USAGE,
        **members,
    }


def events(document: Document) -> list[Document]:
    """The events of a rendered Response: each named by its type, counted, and with nothing after the terminal one."""
    frames = RESPONSES.render(document)
    found: list[Document] = [orjson.loads(sse_data(frame)) for frame in frames]
    assert [event["type"].encode() for event in found] == [sse_event(frame) for frame in frames]
    assert [event.pop("sequence_number") for event in found] == list(range(len(found)))
    assert [RESPONSES.terminal(frame) for frame in frames] == [False] * (len(frames) - 1) + [True]
    return found


def test_it_is_a_dialect() -> None:
    dialect: Dialect = RESPONSES
    assert dialect.both


def test_the_first_and_last_events_carry_the_response() -> None:
    document = response(MESSAGE, completed_at=8)
    created, in_progress, *_, completed = events(document)
    under_way = document | {
        "status": "in_progress",
        "output": [],
        "completed_at": None,
        "usage": None,
        "error": None,
        "incomplete_details": None,
    }
    assert created == {"type": "response.created", "response": under_way}
    assert in_progress == {"type": "response.in_progress", "response": under_way}
    assert completed == {"type": "response.completed", "response": document}


def test_a_message() -> None:
    where = {"item_id": "msg_1", "output_index": 0, "content_index": 0}
    blank = {"type": "output_text", "text": "", "annotations": [], "logprobs": []}
    assert events(response(MESSAGE))[2:-1] == [
        {
            "type": "response.output_item.added",
            "output_index": 0,
            "item": MESSAGE | {"status": "in_progress", "content": []},
        },
        {"type": "response.content_part.added", **where, "part": blank},
        {"type": "response.output_text.delta", **where, "delta": "é🦙", "logprobs": [{"token": "é"}]},
        {
            "type": "response.output_text.annotation.added",
            **where,
            "annotation_index": 0,
            "annotation": {"type": "x"},
        },
        {"type": "response.output_text.done", **where, "text": "é🦙", "logprobs": [{"token": "é"}]},
        {"type": "response.content_part.done", **where, "part": TEXT},
        {"type": "response.output_item.done", "output_index": 0, "item": MESSAGE},
    ]


def test_a_refusal_is_the_second_part() -> None:
    refusal = {"type": "refusal", "refusal": "No"}
    where = {"item_id": "msg_1", "output_index": 0, "content_index": 1}
    assert events(response(MESSAGE | {"content": [TEXT, refusal]}))[8:-2] == [
        {"type": "response.content_part.added", **where, "part": {"type": "refusal", "refusal": ""}},
        {"type": "response.refusal.delta", **where, "delta": "No"},
        {"type": "response.refusal.done", **where, "refusal": "No"},
        {"type": "response.content_part.done", **where, "part": refusal},
    ]


def test_a_function_call() -> None:
    where = {"item_id": "fc_1", "output_index": 1}
    assert events(response(SEARCH, CALL))[4:-1] == [
        {
            "type": "response.output_item.added",
            "output_index": 1,
            "item": CALL | {"status": "in_progress", "arguments": ""},
        },
        {"type": "response.function_call_arguments.delta", **where, "delta": "{}"},
        {"type": "response.function_call_arguments.done", **where, "name": "f", "arguments": "{}"},
        {"type": "response.output_item.done", "output_index": 1, "item": CALL},
    ]


def test_reasoning() -> None:
    where = {"item_id": "rs_1", "output_index": 0}
    summary = where | {"summary_index": 0}
    content = where | {"content_index": 0}
    assert events(response(REASONING))[2:-1] == [
        {
            "type": "response.output_item.added",
            "output_index": 0,
            "item": REASONING | {"summary": [], "content": []},
        },
        {
            "type": "response.reasoning_summary_part.added",
            **summary,
            "part": {"type": "summary_text", "text": ""},
        },
        {"type": "response.reasoning_summary_text.delta", **summary, "delta": "short"},
        {"type": "response.reasoning_summary_text.done", **summary, "text": "short"},
        {
            "type": "response.reasoning_summary_part.done",
            **summary,
            "part": {"type": "summary_text", "text": "short"},
        },
        {"type": "response.content_part.added", **content, "part": {"type": "reasoning_text", "text": ""}},
        {"type": "response.reasoning_text.delta", **content, "delta": "long"},
        {"type": "response.reasoning_text.done", **content, "text": "long"},
        {"type": "response.content_part.done", **content, "part": {"type": "reasoning_text", "text": "long"}},
        {"type": "response.output_item.done", "output_index": 0, "item": REASONING},
    ]


def test_an_item_of_another_kind_comes_whole() -> None:
    assert events(response(SEARCH))[2:-1] == [
        {"type": "response.output_item.added", "output_index": 0, "item": SEARCH | {"status": "in_progress"}},
        {"type": "response.output_item.done", "output_index": 0, "item": SEARCH},
    ]


@pytest.mark.parametrize("status", ["completed", "incomplete"])
def test_a_rendered_response_assembles_to_itself(status: str) -> None:
    document = response(REASONING, MESSAGE, CALL, SEARCH, status=status, x={"y": [1]})
    before = copy.deepcopy(document)
    assert RESPONSES.assemble(RESPONSES.render(document)) == before
    assert document == before


def test_a_stream_without_its_terminal_event_is_malformed() -> None:
    with pytest.raises(Malformed):
        RESPONSES.assemble(RESPONSES.render(response(MESSAGE))[:-1])
    with pytest.raises(Malformed):
        RESPONSES.assemble([sse_frame(b'{"type":"response.completed"}')])


def test_a_word_in_the_text_is_not_the_terminal_event() -> None:
    assert not RESPONSES.terminal(sse_frame(b'{"type":"response.output_text.delta","delta":"response.completed"}'))


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b'{"type":"response.failed","response":{"error":{"code":"server_error","message":"no"}}}', "no"),
        (b'{"type":"response.failed","response":{"error":null}}', "The response failed."),
        (b'{"type":"error","message":"flat","code":null}', "flat"),
        (b'{"type":"error","error":{"message":"nested"}}', "nested"),
        (b'{"error":{"message":"bare"}}', "bare"),
        (b'{"type":"response.created","response":{"error":null}}', None),
        (b'{"type":"response.output_text.delta","delta":"\\"error\\""}', None),
        (b'x "error"', None),
    ],
)
def test_faults(data: bytes, message: str | None) -> None:
    assert fault_message(RESPONSES, sse_frame(data)) == message


def test_our_failure_is_a_fault() -> None:
    frame = RESPONSES.failure(UpstreamBroke("cut off"))
    assert sse_event(frame) == b"error"
    assert fault_message(RESPONSES, frame) == "cut off"
    body = orjson.loads(sse_data(frame))
    assert body["error"] == {
        "type": "server_error",
        "code": "upstream_error",
        "message": "cut off",
        "param": None,
    }
    assert body["message"] == "cut off"


@pytest.mark.parametrize(
    ("document", "reason"),
    [
        (response(MESSAGE, error={"message": "no"}), Reason.ERROR),
        (response(status="failed"), Reason.ERROR),
        (response(status="cancelled"), Reason.ERROR),
        ({"status": "completed"}, Reason.MALFORMED),
        (response(status="completed", output=["x"]), Reason.MALFORMED),
        (response(status="in_progress"), Reason.INCOMPLETE),
        (response(MESSAGE, error=None), None),
        (response(MESSAGE, status="incomplete"), None),
    ],
)
def test_flaws(document: Document, reason: Reason | None) -> None:
    assert RESPONSES.flaw(document) is reason


def test_usage() -> None:
    assert RESPONSES.usage(response()) == Usage(3, 2)
