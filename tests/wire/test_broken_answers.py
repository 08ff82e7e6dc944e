"""Whatever a broken server sends: it is judged or refused as malformed, and nothing else is raised."""

from collections.abc import Callable
from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmproxy.upstream.responses_repair import Repair
from llmproxy.wire.dialect import Dialect
from llmproxy.wire.documents import Document, Malformed
from llmproxy.wire.formats.chat import CHAT, COMPLETIONS
from llmproxy.wire.formats.messages import MESSAGES
from llmproxy.wire.formats.ollama import OLLAMA_CHAT, OLLAMA_GENERATE
from llmproxy.wire.formats.responses import RESPONSES, complete
from llmproxy.wire.framing import sse_data, sse_frame
from tests.wire.strategies import broken_chunks, broken_events


def unless_malformed(call: Callable[[], Any]) -> Any:
    try:
        return call()
    except Malformed:
        return None


def line(document: Document) -> bytes:
    return orjson.dumps(document) + b"\n"


def event(document: Document) -> bytes:
    return sse_frame(orjson.dumps(document))


@pytest.mark.parametrize(
    ("dialect", "frame"),
    [
        (CHAT, event),
        (COMPLETIONS, event),
        (MESSAGES, event),
        (RESPONSES, event),
        (OLLAMA_CHAT, line),
        (OLLAMA_GENERATE, line),
    ],
    ids=lambda value: getattr(value, "name", ""),
)
@given(documents=st.lists(broken_chunks | broken_events, max_size=4))
@settings(max_examples=60, deadline=None)
def test_streams(dialect: Dialect, frame: Callable[[Document], bytes], documents: list[Document]) -> None:
    frames = [frame(document) for document in documents]
    for sent in frames:
        dialect.terminal(sent)
        dialect.fault(sent)
        dialect.usage_only(sent)
    document = unless_malformed(lambda: dialect.assemble(frames))
    if document is not None:
        dialect.usage(document)
        if dialect.flaw(document) is None:
            assert unless_malformed(lambda: dialect.render(document)) != []


@given(documents=st.lists(broken_events, max_size=6), request=broken_events)
@settings(max_examples=200, deadline=None)
def test_repair(documents: list[Document], request: Document) -> None:
    repair = Repair(request)
    frames = [mended for document in documents for mended in repair(event(document))]
    numbers = [orjson.loads(sse_data(frame)).get("sequence_number") for frame in frames]
    assert numbers == list(range(len(frames)))


@given(document=broken_events, request=broken_events)
@settings(max_examples=200, deadline=None)
def test_completing(document: Document, request: Document) -> None:
    flaw = RESPONSES.flaw(document)
    assert RESPONSES.flaw(complete(document, request)) is flaw
