"""Answers of Ollama's own API."""

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmproxy.wire.dialect import Dialect, Lossy
from llmproxy.wire.documents import Document, Malformed
from llmproxy.wire.errors import UpstreamBroke
from llmproxy.wire.exchange import Usage
from llmproxy.wire.formats.ollama import OLLAMA_CHAT, OLLAMA_EMBED, OLLAMA_GENERATE
from llmproxy.wire.vocabulary import Reason
from tests.wire.samples import fault_message
from tests.wire.strategies import filled, texts, unknown, values


def lines(*documents: Document) -> list[bytes]:
    return [orjson.dumps(document) + b"\n" for document in documents]


@pytest.mark.parametrize("dialect", [OLLAMA_CHAT, OLLAMA_GENERATE])
def test_they_are_dialects(dialect: Dialect) -> None:
    assert dialect.both
    with pytest.raises(Malformed):
        dialect.assemble([])
    with pytest.raises(Malformed):
        dialect.assemble([b"nonsense\n"])


def test_chat() -> None:
    call = {"function": {"name": "f", "arguments": {"done": True}}}
    frames = lines(
        {
            "model": "m",
            "created_at": "1",
            "message": {"role": "assistant", "thinking": "h", "content": ""},
            "done": False,
        },
        {
            "model": "m",
            "created_at": "2",
            "message": {"role": "assistant", "thinking": "m", "content": ""},
            "done": False,
        },
        {"model": "m", "created_at": "3", "message": {"role": "assistant", "content": "é"}, "done": False},
        {
            "model": "m",
            "created_at": "4",
            "message": {"role": "assistant", "content": "🦙", "tool_calls": [call]},
            "done": False,
        },
        {
            "model": "m",
            "created_at": "5",
            "message": {"role": "assistant", "content": ""},
            "done": True,
            "eval_count": 2,
        },
    )
    assert [OLLAMA_CHAT.terminal(frame) for frame in frames] == [False, False, False, False, True]
    document = OLLAMA_CHAT.assemble(frames)
    assert document == {
        "model": "m",
        "created_at": "5",
        "message": {"role": "assistant", "thinking": "hm", "content": "é🦙", "tool_calls": [call]},
        "done": True,
        "eval_count": 2,
    }
    assert OLLAMA_CHAT.usage(document) == Usage(None, 2)
    assert OLLAMA_CHAT.assemble(OLLAMA_CHAT.render(document)) == document


def test_generate() -> None:
    frames = lines(
        {"response": "a", "done": False},
        {"response": "b", "done": False},
        {
            "response": "",
            "done": True,
            "done_reason": "stop",
            "context": [1, 2],
            "prompt_eval_count": 3,
            "eval_count": 2,
        },
    )
    document = OLLAMA_GENERATE.assemble(frames)
    assert document["response"] == "ab"
    assert document["context"] == [1, 2]
    assert OLLAMA_GENERATE.usage(document) == Usage(3, 2)
    assert OLLAMA_GENERATE.flaw(document) is None


@pytest.mark.parametrize(
    ("document", "reason"),
    [
        ({"response": "a", "error": "no", "done": True}, Reason.ERROR),
        ({"done": True}, Reason.MALFORMED),
        ({"response": "a", "done": False}, Reason.INCOMPLETE),
        ({"response": "", "done": True, "done_reason": "load"}, Reason.SIDE_EFFECT),
        ({"response": "a", "done": True}, None),
    ],
)
def test_flaws(document: Document, reason: Reason | None) -> None:
    assert OLLAMA_GENERATE.flaw(document) is reason


_TIMES = {"done": st.just(True), "done_reason": st.just("stop"), "eval_count": st.integers(0, 9)}
_MORE = {
    "model": filled,
    "created_at": filled,
    "logprobs": st.lists(st.fixed_dictionaries({"token": texts}), min_size=1),
}
_NATIVE_CALLS = st.lists(
    st.fixed_dictionaries({"function": st.fixed_dictionaries({"name": filled, "arguments": unknown})}), max_size=3
)


@given(
    document=st.fixed_dictionaries(
        {"response": texts, **_TIMES},
        optional={"thinking": texts, "context": st.lists(st.integers(0, 9)), "x_one": values, **_MORE},
    )
)
@settings(max_examples=60, deadline=None)
def test_a_generated_answer_comes_back_from_its_lines(document: Document) -> None:
    frames = OLLAMA_GENERATE.render(document)
    assert OLLAMA_GENERATE.assemble(frames) == document
    assert [OLLAMA_GENERATE.terminal(frame) for frame in frames] == [False] * (len(frames) - 1) + [True]


@given(
    document=st.fixed_dictionaries(
        {
            "message": st.fixed_dictionaries(
                {"role": st.just("assistant"), "content": texts},
                optional={"thinking": texts, "tool_calls": _NATIVE_CALLS, "images": st.lists(texts), "x_one": values},
            ),
            **_TIMES,
        },
        optional={"x_two": values, **_MORE},
    )
)
@settings(max_examples=60, deadline=None)
def test_a_chat_comes_back_from_its_lines(document: Document) -> None:
    frames = OLLAMA_CHAT.render(document)
    assert OLLAMA_CHAT.assemble(frames) == document
    assert [OLLAMA_CHAT.terminal(frame) for frame in frames] == [False] * (len(frames) - 1) + [True]


def test_what_only_an_earlier_line_says_is_doubted() -> None:
    frames = lines({"response": "a", "image": "AAAA", "done": False}, {"response": "", "done": True})
    with pytest.raises(Lossy):
        OLLAMA_GENERATE.assemble(frames)
    progress = lines({"completed": 1, "total": 2, "done": False}, {"response": "", "image": "AAAA", "done": True})
    assert OLLAMA_GENERATE.assemble(progress) == {"response": "", "image": "AAAA", "done": True}


def test_an_error_line_is_a_fault_and_a_flaw() -> None:
    frames = lines({"response": "a", "done": False}, {"error": "llama runner gone"})
    assert [fault_message(OLLAMA_GENERATE, frame) for frame in frames] == [None, "llama runner gone"]
    assert OLLAMA_GENERATE.flaw(OLLAMA_GENERATE.assemble(frames)) is Reason.ERROR
    assert fault_message(OLLAMA_CHAT, OLLAMA_CHAT.failure(UpstreamBroke("cut off"))) == "cut off"


def test_embed() -> None:
    dialect: Dialect = OLLAMA_EMBED
    document = {"embeddings": [[0.5]], "prompt_eval_count": 4}
    assert dialect.flaw(document) is None
    assert dialect.usage(document) == Usage(4, None)
    assert dialect.flaw({"embeddings": []}) is Reason.MALFORMED
    assert orjson.loads(dialect.failure(UpstreamBroke("no"))) == {"error": "no"}


@pytest.mark.parametrize("error", [None, ""])
def test_an_empty_error_is_none(error: str | None) -> None:
    assert OLLAMA_CHAT.fault(lines({"error": error, "done": False})[0]) is None
