"""What a stream that was asked for with usage looks like to those who did not ask."""

from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmproxy.wire import sse
from llmproxy.wire.chat import CHAT
from llmproxy.wire.chunks import DONE
from llmproxy.wire.usage_filter import UsageFilter
from tests.wire.strategies import chat_documents

Chunk = dict[str, Any]

HEAD = {"id": "1", "object": "chat.completion.chunk", "created": 1, "model": "m", "system_fingerprint": "f"}
COUNTS = {"prompt_tokens": 1, "completion_tokens": 2, "total_tokens": 3}
ZEROS = dict.fromkeys(COUNTS, 0)


def chunk(text: str, finish: str | None = None, **members: Any) -> Chunk:
    return HEAD | {"choices": [{"index": 0, "delta": {"content": text}, "finish_reason": finish}], **members}


def shown(*chunks: Chunk) -> list[Chunk]:
    frames = [*(sse.frame(orjson.dumps(each)) for each in chunks), DONE]
    one = UsageFilter()
    # frame by frame, as they come
    seen = [frame for sent in frames for frame in one.feed([sent])] + one.close()
    other = UsageFilter()
    assert other.feed(frames) + other.close() == seen
    assert seen[-1] == DONE
    return [orjson.loads(sse.data(frame)) for frame in seen[:-1]]


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
