"""llama.cpp's Responses streams, mended."""

import orjson
import pytest

from llmproxy.upstream.responses_repair import Repair
from llmproxy.wire.documents import Document
from llmproxy.wire.formats.responses import RESPONSES, complete
from llmproxy.wire.framing import sse_data, sse_event, sse_frame
from tests.wire.samples import fault_message, sample

REASONING_ID = "rs_1"
MESSAGE_ID = "msg_1"


def recorded(*events: Document) -> list[bytes]:
    return [sse_frame(orjson.dumps(event), str(event.get("type", "")).encode()) for event in events]


def opening() -> list[bytes]:
    under_way = {"id": "resp_1", "object": "response", "status": "in_progress"}
    return recorded(
        {"type": "response.created", "response": under_way},
        {"type": "response.in_progress", "response": under_way},
    )


def thinking() -> list[bytes]:
    """What llama.cpp sends when a model reasons, speaks and calls twice: every done at the end, calls without ids."""
    reasoning = {"id": REASONING_ID, "summary": [], "type": "reasoning", "encrypted_content": ""}
    message = {"id": MESSAGE_ID, "type": "message", "role": "assistant"}
    calls = [
        {
            "type": "function_call",
            "call_id": f"fc_{name}",
            "name": name,
            "arguments": '{"a":1}',
            "status": "completed",
        }
        for name in ("f", "g")
    ]
    part = {"type": "output_text", "annotations": [], "logprobs": [], "text": "é🦙"}
    output: list[Document] = [
        reasoning | {"content": [{"type": "reasoning_text", "text": "hmm"}]},
        message | {"status": "completed", "content": [part]},
        *calls,
    ]
    added: list[Document] = []
    for call in calls:
        blank = call | {"arguments": "", "status": "in_progress"}
        added += [
            {"type": "response.output_item.added", "item": blank},
            {"type": "response.function_call_arguments.delta", "item_id": call["call_id"], "delta": '{"a"'},
            {"type": "response.function_call_arguments.delta", "item_id": call["call_id"], "delta": ":1}"},
        ]
    return opening() + recorded(
        {"type": "response.output_item.added", "item": reasoning | {"content": [], "status": "in_progress"}},
        {"type": "response.reasoning_text.delta", "item_id": REASONING_ID, "delta": "hm"},
        {"type": "response.reasoning_text.delta", "item_id": REASONING_ID, "delta": "m"},
        {"type": "response.output_item.added", "item": message | {"status": "in_progress", "content": []}},
        {
            "type": "response.content_part.added",
            "item_id": MESSAGE_ID,
            "part": {"type": "output_text", "text": ""},
        },
        {"type": "response.output_text.delta", "item_id": MESSAGE_ID, "delta": "é"},
        {"type": "response.output_text.delta", "item_id": MESSAGE_ID, "delta": "🦙"},
        *added,
        {"type": "response.output_text.done", "item_id": MESSAGE_ID, "text": "é🦙"},
        {"type": "response.content_part.done", "item_id": MESSAGE_ID, "part": part},
        *({"type": "response.output_item.done", "item": item} for item in output),
        {"type": "response.completed", "response": finished(output), "timings": {"predicted_n": 9}},
    )


def finished(output: list[Document]) -> Document:
    usage = {"input_tokens": 3, "output_tokens": 9, "total_tokens": 12}
    return {
        "id": "resp_1",
        "object": "response",
        "created_at": 70,
        "status": "completed",
        "model": "alias",
        "output": output,
        "usage": usage,
    }


def mend(frames: list[bytes], request: Document | None = None) -> list[bytes]:
    repair = Repair(request or {"model": "m"}, clock=lambda: 50.0)
    return [mended for frame in frames for mended in repair(frame)]


def events(frames: list[bytes]) -> list[Document]:
    found: list[Document] = [orjson.loads(sse_data(frame)) for frame in frames]
    assert [event["sequence_number"] for event in found] == list(range(len(found)))
    assert [event["type"].encode() for event in found] == [sse_event(frame) for frame in frames]
    return found


def joined(frames: list[bytes]) -> list[Document]:
    """The events with the deltas of one text in one: how a text is cut is the model's affair."""
    together: list[Document] = []
    for event in events(frames):
        del event["sequence_number"]
        last = together[-1] if together else {}
        if event["type"].endswith(".delta") and event["type"] == last.get("type"):
            last["delta"] += event["delta"]
        else:
            together.append(event)
    return together


STREAMS: dict[str, list[bytes]] = {
    "text": sample("llamacpp_responses_text"),
    "function call": sample("llamacpp_responses_function_call"),
    "everything": thinking(),
}


@pytest.mark.parametrize("name", STREAMS)
def test_a_mended_stream_has_the_events_of_a_rendered_one(name: str) -> None:
    mended = mend(STREAMS[name])
    document = RESPONSES.assemble(mended)
    rendered = joined(RESPONSES.render(document))
    got = joined(mended)
    assert got[2:-1] == rendered[2:-1]
    assert got[-1]["response"] == document
    assert RESPONSES.flaw(document) is None


@pytest.mark.parametrize("name", STREAMS)
def test_every_event_that_tells_the_response_tells_the_same_one(name: str) -> None:
    told = [event["response"] for event in events(mend(STREAMS[name])) if "response" in event]
    assert len(told) == 3
    assert {response["id"] for response in told} == {RESPONSES.assemble(STREAMS[name])["id"]}
    assert {response["created_at"] for response in told} == {50}
    assert [response["status"] for response in told] == ["in_progress", "in_progress", "completed"]
    assert all(response["output"] == [] for response in told[:2])
    assert told[-1] == complete(told[-1], {"model": "m"})
    assert told[0] == complete(told[0], {"model": "m"})


def test_the_texts_are_all_there() -> None:
    output = RESPONSES.assemble(mend(thinking()))["output"]
    assert [item["id"] for item in output] == [REASONING_ID, MESSAGE_ID, "fc_f", "fc_g"]
    assert output[0]["content"] == [{"type": "reasoning_text", "text": "hmm"}]
    assert output[1]["content"][0]["text"] == "é🦙"
    assert [item["arguments"] for item in output[2:]] == ['{"a":1}', '{"a":1}']


def test_what_stands_beside_the_response_stays_there() -> None:
    assert events(mend(thinking()))[-1]["timings"] == {"predicted_n": 9}


def test_deltas_are_passed_on_one_by_one() -> None:
    repair = Repair({})
    frames = STREAMS["text"]
    for frame in frames[:4]:
        repair(frame)
    told = [orjson.loads(sse_data(mended)) for frame in frames[4:7] for mended in repair(frame)]
    deltas = [event["delta"] for event in told if event["type"] == "response.output_text.delta"]
    assert deltas == [orjson.loads(sse_data(frame))["delta"] for frame in frames[4:7]]


def test_a_cut_response_ends_incomplete() -> None:
    frames = mend(STREAMS["text"], {"model": "m", "max_output_tokens": 4})
    assert RESPONSES.terminal(frames[-1])
    last = events(frames)[-1]
    assert last["type"] == "response.incomplete"
    assert last["response"]["incomplete_details"] == {"reason": "max_output_tokens"}


def test_a_stream_of_nothing_but_its_end_is_whole() -> None:
    item = {"type": "message", "id": MESSAGE_ID, "content": [{"type": "output_text", "text": "hi"}]}
    frames = mend(recorded({"type": "response.completed", "response": finished([item])}))
    assert joined(frames)[2:-1] == joined(RESPONSES.render(RESPONSES.assemble(frames)))[2:-1]
    assert [event["type"] for event in events(frames)][:3] == [
        "response.created",
        "response.in_progress",
        "response.output_item.added",
    ]


def test_the_end_of_a_text_that_no_delta_carried_is_sent() -> None:
    call = {"type": "function_call", "call_id": "fc_f", "name": "f"}
    frames = mend(
        opening()
        + recorded(
            {"type": "response.output_item.added", "item": call | {"arguments": ""}},
            {"type": "response.function_call_arguments.delta", "item_id": "fc_f", "delta": '{"a"'},
            {"type": "response.output_item.done", "item": call | {"arguments": '{"a":1}'}},
        )
    )
    told = [(event["type"].removeprefix("response."), event.get("delta")) for event in events(frames)[2:]]
    assert told == [
        ("output_item.added", None),
        ("function_call_arguments.delta", '{"a"'),
        ("function_call_arguments.delta", ":1}"),
        ("function_call_arguments.done", None),
        ("output_item.done", None),
    ]


@pytest.mark.parametrize(
    ("type", "kind"),
    [
        ("response.output_text.delta", "message"),
        ("response.reasoning_text.delta", "reasoning"),
        ("response.function_call_arguments.delta", "function_call"),
    ],
)
def test_a_delta_that_nothing_announced_opens_its_item(type: str, kind: str) -> None:
    frames = mend(opening() + recorded({"type": type, "item_id": "x_1", "delta": "a"}))
    added = events(frames)[2]
    assert added["type"] == "response.output_item.added"
    assert (added["item"]["type"], added["item"]["id"]) == (kind, "x_1")
    assert events(frames)[-1]["delta"] == "a"


def test_events_of_other_kinds_are_numbered() -> None:
    told = events(mend(opening() + recorded({"type": "response.new.kind", "x": 1})))[-1]
    assert told == {"type": "response.new.kind", "sequence_number": 2, "x": 1}


@pytest.mark.parametrize(
    "event",
    [
        {"error": {"code": 500, "message": "no memory", "type": "server_error"}},
        {"type": "error", "message": "no memory"},
        {"type": "response.failed", "response": {"error": {"message": "no memory"}}},
    ],
)
@pytest.mark.parametrize("before", [0, 5])
def test_an_error_becomes_a_failed_response_and_the_end(event: Document, before: int) -> None:
    started = STREAMS["text"][:before]
    frames = mend(started + recorded(event) + STREAMS["text"][5:])
    assert frames[: len(mend(started))] == mend(started)
    assert len(frames) == len(mend(started)) + 1
    assert fault_message(RESPONSES, frames[-1]) == "no memory"
    last = events(frames)[-1]
    assert last["type"] == "response.failed"
    assert last["response"]["status"] == "failed"
    assert last["response"]["error"] == {"code": "server_error", "message": "no memory"}
    if before:
        assert last["response"]["id"] == RESPONSES.assemble(STREAMS["text"])["id"]


def test_what_is_no_strict_json_is_handed_on() -> None:
    odd = b'data: {"type":"response.output_text.delta","delta":"a","logprobs":[NaN]}\n\n'
    assert mend([*opening(), odd]) == [*mend(opening()), odd]
    assert mend([*opening(), b"data: [DONE]\n\n"]) == mend(opening())


def test_an_event_without_a_type_is_dropped() -> None:
    assert mend([*opening(), *recorded({"x": 1})]) == mend(opening())


def test_a_standard_stream_passes_unchanged() -> None:
    frames = RESPONSES.render(complete(finished([]), {}))
    assert mend(frames) == frames


def test_progress_and_timings_stand_beside_their_events() -> None:
    progress, timings = {"total": 11, "processed": 5}, {"predicted_n": 1}
    under_way = {"id": "resp_1", "object": "response", "status": "in_progress"}
    frames = mend(
        recorded(
            {"type": "response.created", "response": under_way},
            {"type": "response.in_progress", "response": under_way, "prompt_progress": progress, "timings": timings},
            {"type": "response.output_text.delta", "item_id": "msg_1", "delta": "x", "timings": timings},
            {"type": "response.completed", "response": under_way | {"status": "completed"}, "timings": timings},
        )
    )
    beside = [(event["type"], event.get("prompt_progress"), event.get("timings")) for event in events(frames)]
    assert [row for row in beside if row[1] or row[2]] == [
        ("response.in_progress", progress, timings),
        ("response.output_text.delta", None, timings),
        ("response.completed", None, timings),
    ]
