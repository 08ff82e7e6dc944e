"""One answer, two callers: each sees their own echo, and usage only if they asked."""

import orjson
import pytest

from llmproxy.proxy.response import View
from llmproxy.wire.echo import echo_of
from llmproxy.wire.formats.chat import CHAT
from llmproxy.wire.formats.responses import RESPONSES
from llmproxy.wire.framing import sse_data, sse_frame

ANN = {"metadata": {"who": "ann"}, "user": "ann"}
BOB = {"metadata": {"who": "bob"}}


def lifecycle(kind: str) -> bytes:
    response = {"id": "resp_1", "status": "completed", "output": [], **echo_of(ANN)}
    return sse_frame(orjson.dumps({"type": kind, "sequence_number": 0, "response": response}), kind.encode())


def test_a_document_gets_this_callers_echo() -> None:
    body = orjson.dumps({"id": "resp_1", "output": [], **echo_of(ANN)})
    view = View(RESPONSES, usage=False, echo=echo_of(BOB))
    assert orjson.loads(view.document(body)) == {"id": "resp_1", "output": [], **echo_of(BOB)}
    assert View(RESPONSES, usage=False, echo=echo_of(ANN)).document(body) is body


def test_a_member_that_the_upstream_does_not_repeat_is_not_added() -> None:
    body = orjson.dumps({"id": "resp_1", "output": []})
    assert View(RESPONSES, usage=False, echo=echo_of(BOB)).document(body) is body


def test_every_lifecycle_frame_gets_it_and_no_other_is_touched() -> None:
    delta = sse_frame(orjson.dumps({"type": "response.output_text.delta", "delta": '"response":{"user":"ann"}'}))
    frames = [lifecycle("response.created"), delta, lifecycle("response.completed")]
    seen = View(RESPONSES, usage=False, echo=echo_of(BOB)).frames(frames)
    assert seen[1] is delta
    for frame in (seen[0], seen[2]):
        response = orjson.loads(sse_data(frame))["response"]
        assert response["metadata"] == {"who": "bob"}
        assert response["user"] is None
    assert View(RESPONSES, usage=False, echo=echo_of(ANN)).frames(frames) == frames


def test_usage_frames_are_for_those_who_asked() -> None:
    document = {
        "id": "1",
        "object": "chat.completion",
        "choices": [{"index": 0, "message": {"role": "assistant", "content": "x"}, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2},
    }
    body = orjson.dumps(document)
    with_usage, without = View(CHAT, usage=True).rendered(body), View(CHAT, usage=False).rendered(body)
    assert b'"usage":{' in with_usage
    assert b'"usage":{' not in without
    assert with_usage.endswith(b"data: [DONE]\n\n")
    assert without.endswith(b"data: [DONE]\n\n")


@pytest.mark.parametrize("value", ["NaN", "-Infinity", r'"\ud83d"'])
def test_events_that_are_no_strict_json_get_it_too(value: str) -> None:
    """All events of a Response name it by one id."""
    event = b'{"type":"response.completed","response":{"id":"resp_1","output":[],"x":%b}}' % value.encode()
    frames = [lifecycle("response.created"), sse_frame(event, b"response.completed")]
    seen = View(RESPONSES, usage=False, echo={"id": "resp_ours"}).frames(frames)
    assert all(b'"resp_ours"' in frame and b'"resp_1"' not in frame for frame in seen)
    assert value.encode() in seen[1]
