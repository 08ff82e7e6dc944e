"""How answers end: the words that say done, errors in every shape, ends that lack a newline or their terminal event."""

from collections.abc import Callable
from typing import Any

import orjson
import pytest

from llmproxy.wire.dialect import Dialect
from llmproxy.wire.documents import Document
from llmproxy.wire.formats.chat import CHAT, COMPLETIONS
from llmproxy.wire.formats.embeddings import EMBEDDINGS
from llmproxy.wire.formats.messages import MESSAGES
from llmproxy.wire.formats.ollama import OLLAMA_CHAT, OLLAMA_GENERATE
from llmproxy.wire.formats.plain import RERANK
from llmproxy.wire.formats.responses import RESPONSES
from llmproxy.wire.formats.transcriptions import TRANSCRIPTIONS
from llmproxy.wire.framing import NdjsonSplitter, SseSplitter, sse_data, sse_event, sse_frame
from llmproxy.wire.vocabulary import Reason
from tests.wire.samples import fault_message


def chat(word: object) -> Document:
    return {"choices": [{"message": {"role": "assistant", "content": "a"}, "finish_reason": word}]}


def completion(word: object) -> Document:
    return {"choices": [{"text": "a", "finish_reason": word}]}


def message(word: object) -> Document:
    return {"type": "message", "content": [], "stop_reason": word}


def generated(word: object) -> Document:
    return {"response": "a", "done": True, "done_reason": word}


def chatted(word: object) -> Document:
    return {"message": {"role": "assistant", "content": "a"}, "done": True, "done_reason": word}


def response(word: object) -> Document:
    return {"status": "incomplete", "output": [], "incomplete_details": {"reason": word}}


MADE: dict[Dialect, Callable[[object], Document]] = {
    CHAT: chat,
    COMPLETIONS: completion,
    MESSAGES: message,
    OLLAMA_GENERATE: generated,
    OLLAMA_CHAT: chatted,
    RESPONSES: response,
}
DIALECTS: tuple[Dialect, ...] = tuple(MADE)
_OPENAI = ("stop", "length", "tool_calls", "function_call", "content_filter")
_ELSEWHERE = ("eos", "eos_token", "stop_sequence", "end_turn", "max_tokens", "tool_use", "model_length", "STOP")
SAYING: dict[Dialect, tuple[str, ...]] = {
    CHAT: (*_OPENAI, *_ELSEWHERE),
    COMPLETIONS: (*_OPENAI, *_ELSEWHERE),
    MESSAGES: ("end_turn", "max_tokens", "stop_sequence", "tool_use", "pause_turn", "refusal"),
    OLLAMA_GENERATE: ("stop", "length"),
    OLLAMA_CHAT: ("stop", "length"),
    RESPONSES: ("max_output_tokens", "content_filter"),
}
CUT: tuple[object, ...] = ("abort", "error", "cancelled", "canceled", "timeout", "user_cancel", "unheard-of", 1, {})


def name(value: object) -> str:
    return str(getattr(value, "name", value))


@pytest.mark.parametrize(("dialect", "word"), [(d, w) for d in DIALECTS for w in SAYING[d]], ids=name)
def test_a_word_that_says_done(dialect: Dialect, word: str) -> None:
    assert dialect.flaw(MADE[dialect](word)) is None


@pytest.mark.parametrize("word", CUT, ids=str)
@pytest.mark.parametrize("dialect", DIALECTS, ids=name)
def test_any_other_word_says_that_it_may_be_cut_short(dialect: Dialect, word: object) -> None:
    assert dialect.flaw(MADE[dialect](word)) is Reason.INCOMPLETE


@pytest.mark.parametrize("dialect", [CHAT, COMPLETIONS, MESSAGES], ids=name)
@pytest.mark.parametrize("word", [None, ""])
def test_no_word_says_nothing(dialect: Dialect, word: object) -> None:
    assert dialect.flaw(MADE[dialect](word)) is Reason.INCOMPLETE


@pytest.mark.parametrize("dialect", [OLLAMA_CHAT, OLLAMA_GENERATE], ids=name)
def test_an_older_ollama_says_done_alone(dialect: Dialect) -> None:
    assert dialect.flaw({name: value for name, value in MADE[dialect]("").items() if name != "done_reason"}) is None


@pytest.mark.parametrize(
    ("dialect", "document"),
    [
        *((d, {"error": {"message": "no"}}) for d in DIALECTS),
        *((d, {"error": "no"}) for d in DIALECTS),
        *((d, MADE[d]("stop") | {"error": {"code": 500}}) for d in DIALECTS),
        (CHAT, {"object": "error", "message": "no"}),
        (COMPLETIONS, {"object": "error", "message": "no"}),
        (MESSAGES, {"type": "error", "error": {"type": "overloaded_error"}}),
        (RESPONSES, {"type": "error", "message": "no"}),
        (CHAT, {"choices": [{"message": {"content": "a"}, "finish_reason": "stop", "error": {"code": 1}}]}),
        (CHAT, {"choices": [{"message": {"content": "a", "error": "no"}, "finish_reason": "stop"}]}),
        (COMPLETIONS, {"choices": [{"text": "a", "finish_reason": "stop", "error": "no"}]}),
    ],
    ids=name,
)
def test_an_error_anywhere_is_a_flaw(dialect: Dialect, document: Document) -> None:
    assert dialect.flaw(document) is Reason.ERROR


NO_CHOICES: tuple[Any, ...] = (None, [], {}, [None])


@pytest.mark.parametrize(
    ("dialect", "document"),
    [
        *((d, {}) for d in DIALECTS),
        *((d, {"choices": choices}) for d in (CHAT, COMPLETIONS) for choices in NO_CHOICES),
        (CHAT, {"choices": [{"message": None, "finish_reason": "stop"}]}),
        (CHAT, {"choices": [{"message": "text", "finish_reason": "stop"}]}),
        (COMPLETIONS, {"choices": [{"text": None, "finish_reason": "stop"}]}),
        (MESSAGES, {"content": None, "stop_reason": "end_turn"}),
        (OLLAMA_CHAT, {"message": None, "done": True, "done_reason": "stop"}),
        (OLLAMA_GENERATE, {"response": None, "done": True, "done_reason": "stop"}),
        (RESPONSES, {"status": "completed"}),
        (RESPONSES, {"status": "completed", "output": None}),
    ],
    ids=name,
)
def test_an_answer_that_says_nothing_is_malformed(dialect: Dialect, document: Document) -> None:
    assert dialect.flaw(document) is Reason.MALFORMED


TOLD = [
    b'data: {"error":{"message":"no","code":429,"metadata":{"a":1}}}\n\n',
    b'data: {"error":"no"}\n\n',
    b'data: {"error":{"message":"no","at":NaN}}\n\n',
    b'data: {"id":"c","choices":[{"index":0,"delta":{},"finish_reason":"error"}],"error":{"message":"no"}}\n\n',
    b'event: error\ndata: {"message":"no","code":429}\n\n',
    b"event: error\ndata: no\n\n",
    b'data: {"type":"error","message":"no"}\n\n',
    b'data: {"object":"error","message":"no","type":"BadRequestError"}\n\n',
    b'event: error\ndata: {"type":"error","error":{"type":"overloaded_error","message":"no"}}\n\n',
]


@pytest.mark.parametrize("frame", TOLD)
@pytest.mark.parametrize("dialect", [CHAT, COMPLETIONS, RESPONSES, MESSAGES], ids=name)
def test_every_error_in_a_stream_is_told_such_that_clients_raise(dialect: Dialect, frame: bytes) -> None:
    fault = dialect.fault(frame)
    assert fault is not None
    assert fault_message(dialect, frame) == "no"
    told = orjson.loads(sse_data(fault.frame)) if b"NaN" not in fault.frame else {"error": {"message": "no"}}
    assert told["error"]["message"] == "no"
    if dialect is MESSAGES:
        assert sse_event(fault.frame) == b"error"
        assert told["type"] == "error" or b"NaN" in frame
    if b"429" in frame:
        assert told["error"]["code"] == 429
    if dialect is RESPONSES:
        assert told.get("type", "error") == "error"
    elif b'"error":{' in frame and dialect is not MESSAGES:
        assert fault.frame == frame, "what clients take for an error is told as it came"


@pytest.mark.parametrize(
    "frame",
    [
        b'data: {"choices":[{"index":0,"delta":{"content":"an \\"error\\""}}],"error":null}\n\n',
        b'data: {"type":"response.created","response":{"error":null}}\n\n',
        b"data: an error of no shape\n\n",
        b"data: [DONE]\n\n",
    ],
)
@pytest.mark.parametrize("dialect", [CHAT, COMPLETIONS, RESPONSES, MESSAGES], ids=name)
def test_other_frames_are_no_errors(dialect: Dialect, frame: bytes) -> None:
    assert dialect.fault(frame) is None


@pytest.mark.parametrize("rest", [b"data: [DONE]", b"data: [DONE]\n", b"data:[DONE]\r\n", b"data: [DONE]\r"])
def test_an_event_may_lack_its_blank_line_at_the_end(rest: bytes) -> None:
    splitter = SseSplitter()
    assert splitter.feed(b'data: {"a":1}\n\n' + rest) == [b'data: {"a":1}\n\n']
    assert splitter.finish() == [b"data: [DONE]\n\n"]
    assert splitter.rest() == b""
    assert splitter.finish() == []


@pytest.mark.parametrize(
    "rest", [b'data: {"a":1', b"data: [DON", b"proxy error: gone\n", b"event: error\n", b'{"a":1}']
)
def test_an_event_cut_in_two_is_none(rest: bytes) -> None:
    splitter = SseSplitter()
    splitter.feed(rest)
    assert splitter.finish() == []
    assert splitter.rest() == rest


def test_a_line_may_lack_its_newline_at_the_end() -> None:
    splitter = NdjsonSplitter()
    assert splitter.feed(b'{"a":1}\n{"done":true}') == [b'{"a":1}\n']
    assert splitter.finish() == [b'{"done":true}\n']
    assert splitter.rest() == b""
    assert splitter.feed(b'{"done":tr') == []
    assert splitter.finish() == []
    assert splitter.rest() == b'{"done":tr'


def chunk(*choices: Document) -> bytes:
    return sse_frame(orjson.dumps({"choices": list(choices)}))


FINISHED = [
    ([chunk({"index": 0, "delta": {}, "finish_reason": "stop"})], True),
    ([chunk({"index": 0, "finish_reason": "stop"}), chunk()], True),
    ([chunk({"delta": {}, "finish_reason": "stop"}), chunk({"delta": {}, "finish_reason": None})], True),
    ([chunk({"index": 0, "finish_reason": "stop"}), chunk({"index": 1, "finish_reason": None})], False),
    ([chunk({"index": 0, "finish_reason": ""})], False),
    ([chunk({"index": 0, "delta": {}, "finish_reason": None})], False),
    ([chunk()], False),
    ([b"data: null\n\n", b"data: nonsense\n\n"], False),
    ([], False),
]


@pytest.mark.parametrize(("frames", "finished"), FINISHED)
@pytest.mark.parametrize("dialect", [CHAT, COMPLETIONS], ids=name)
def test_without_the_terminal_event_every_choice_must_have_finished(
    dialect: Dialect, frames: list[bytes], finished: bool
) -> None:
    assert dialect.finished(frames) is finished


def test_a_message_has_finished_with_its_stop_reason() -> None:
    started = sse_frame(b'{"type":"message_start","message":{}}', b"message_start")
    stopped = sse_frame(b'{"type":"message_delta","delta":{"stop_reason":"end_turn"}}', b"message_delta")
    assert not MESSAGES.finished([started])
    assert MESSAGES.finished([started, stopped])


def test_a_response_has_not_finished_without_its_terminal_event() -> None:
    assert not RESPONSES.finished([sse_frame(b'{"type":"response.output_item.done"}')])


def test_ollama_may_end_without_a_word_but_not_before_its_first() -> None:
    assert OLLAMA_CHAT.finished([b'{"message":{},"done":false}\n'])
    assert not OLLAMA_CHAT.finished([])


@pytest.mark.parametrize(
    ("dialect", "frame"),
    [
        (RESPONSES, b'data: {"type":"response.completed","response":{"output":[{"logprob":-Infinity}]}}\n\n'),
        (MESSAGES, b'data: {"type":"message_stop","at":NaN}\n\n'),
        (OLLAMA_CHAT, b'{"message":{"content":"\\ud83d"},"done":true}\n'),
    ],
    ids=name,
)
def test_a_terminal_event_is_one_whatever_its_json(dialect: Dialect, frame: bytes) -> None:
    assert dialect.terminal(frame)


def test_words_of_an_error_in_what_is_no_event_are_no_error() -> None:
    assert RESPONSES.fault(sse_frame(b'the "response.failed"')) is None
    assert CHAT.fault(sse_frame(b"an error")) is None


def test_an_error_whose_member_is_empty_has_its_members_beside_it() -> None:
    fault = CHAT.fault(sse_frame(b'{"type":"error","error":null,"message":"no","sequence_number":3}'))
    assert fault is not None
    assert fault.error == {"message": "no"}


@pytest.mark.parametrize("dialect", [CHAT, COMPLETIONS, MESSAGES, OLLAMA_CHAT, RESPONSES, TRANSCRIPTIONS])
def test_only_chunks_have_frames_for_those_who_asked_for_usage(dialect: Dialect) -> None:
    counted = sse_frame(b'{"choices":[],"usage":{"prompt_tokens":1}}')
    assert dialect.usage_only(counted) is (dialect in (CHAT, COMPLETIONS))
    assert (dialect.usage_filter() is None) is (dialect not in (CHAT, COMPLETIONS))


@pytest.mark.parametrize("dialect", [RESPONSES, TRANSCRIPTIONS, RERANK, EMBEDDINGS])
def test_some_streams_end_with_their_terminal_event_only(dialect: Dialect) -> None:
    assert dialect.finished([sse_frame(b'{"choices":[{"finish_reason":"stop"}]}')]) is False
