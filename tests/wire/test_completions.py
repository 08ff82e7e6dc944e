"""Legacy completions: assembled, rendered."""

import orjson
import pytest
from hypothesis import given, settings

from llmproxy.wire.dialect import Dialect, Lossy
from llmproxy.wire.documents import Document
from llmproxy.wire.formats.chat import COMPLETIONS
from llmproxy.wire.formats.chunks import DONE
from llmproxy.wire.framing import sse_frame
from llmproxy.wire.vocabulary import Reason
from tests.wire.samples import sample
from tests.wire.strategies import completions_documents


def test_it_is_a_dialect() -> None:
    dialect: Dialect = COMPLETIONS
    assert dialect.both


@given(document=completions_documents)
@settings(max_examples=100, deadline=None)
def test_a_rendered_answer_assembles_to_itself(document: Document) -> None:
    assert COMPLETIONS.assemble(COMPLETIONS.render(document)) == document


def test_two_choices_of_llamacpp() -> None:
    with pytest.raises(Lossy) as raised:
        COMPLETIONS.assemble(sample("llamacpp_completions_two_choices"))
    document = raised.value.document
    assert [choice["text"] for choice in document["choices"]] == ["-tech stuff", "-fit approach"]
    assert [choice["finish_reason"] for choice in document["choices"]] == ["length", "length"]
    assert len(document["choices"][0]["logprobs"]["content"]) == 3
    # the usage of each choice came on the frame that finished it
    assert document["usage"]["completion_tokens"] == 6
    assert document["usage"]["prompt_tokens"] == 1
    assert document["usage"]["total_tokens"] == 7
    assert COMPLETIONS.flaw(document) is None
    del document["timings"]
    assert COMPLETIONS.assemble(COMPLETIONS.render(document)) == document


def test_lists_of_old_logprobs_grow() -> None:
    frames = [
        sse_frame(orjson.dumps({"choices": [{"index": 0, "text": text, "logprobs": logprobs}]}))
        for text, logprobs in (
            ("a", {"tokens": ["a"], "text_offset": [0]}),
            ("b", {"tokens": ["b"], "text_offset": [1]}),
            ("", None),
        )
    ]
    choice = COMPLETIONS.assemble([*frames, DONE])["choices"][0]
    assert choice["text"] == "ab"
    assert choice["logprobs"] == {"tokens": ["a", "b"], "text_offset": [0, 1]}


def test_zeros_of_ollama_give_way_to_the_real_usage() -> None:
    zeros = {"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0}
    real = {"prompt_tokens": 4, "completion_tokens": 2, "total_tokens": 6}
    frames = [
        sse_frame(orjson.dumps({"choices": choices, "usage": usage}))
        for choices, usage in (
            ([{"index": 0, "text": "a", "finish_reason": None}], zeros),
            ([{"index": 0, "text": "", "finish_reason": "stop"}], zeros),
            ([], real),
        )
    ]
    assert [COMPLETIONS.usage_only(frame) for frame in frames] == [False, False, True]
    assert COMPLETIONS.assemble([*frames, DONE])["usage"] == real


def test_a_choice_without_text_is_malformed() -> None:
    assert COMPLETIONS.flaw({"choices": [{"message": {}, "finish_reason": "stop"}]}) is Reason.MALFORMED


def test_half_a_character_at_the_end_is_in_the_plain_answer_only() -> None:
    frames = [
        sse_frame(orjson.dumps({"choices": [{"index": 0, "text": text, "finish_reason": finish}], **more}))
        for text, finish, more in (("a", None, {}), ("", "length", {"timings": {"predicted_n": 2}}))
    ]
    with pytest.raises(Lossy):
        COMPLETIONS.assemble([*frames, DONE])


def test_a_finish_reason_outlives_the_chunks_after_it() -> None:
    chunks: list[Document] = [
        {"choices": [{"index": 0, "text": "a", "finish_reason": "length"}]},
        {"choices": [{"index": 0, "text": "", "finish_reason": None}]},
        {"choices": [], "timings": {"predicted_n": 2}},
    ]
    with pytest.raises(Lossy, match="held back") as raised:
        COMPLETIONS.assemble([sse_frame(orjson.dumps(chunk)) for chunk in chunks])
    assert raised.value.document["choices"][0]["finish_reason"] == "length"
