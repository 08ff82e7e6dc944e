"""Streams that break after they began: the client is told, and nothing is kept."""

import httpx
import pytest

from tests.faults.outcome import Outcome, ask, failed, failed_inside
from tests.scripted import (
    CHAT,
    COMPLETIONS,
    MESSAGES,
    OLLAMA_CHAT,
    OLLAMA_GENERATE,
    RESPONSES,
    STREAMING,
    Endpoint,
    Json,
    marker,
    named,
)
from tests.scripted_upstream import Gate, ScriptedUpstream

EVERYWHERE = ("cut", "reset", "bad-chunk", "clean-end", "half-frame", "no-terminal", "error-frame", "router-text")
#: ends that are none of these endpoints' streams' breaks: every choice has finished, or Ollama says nothing more
ENDS = [
    *((endpoint, "no-terminal") for endpoint in (CHAT, COMPLETIONS, MESSAGES)),
    *((endpoint, fault) for endpoint in (OLLAMA_CHAT, OLLAMA_GENERATE) for fault in ("clean-end", "no-terminal")),
]
BREAKS = [
    *((endpoint, fault) for endpoint in STREAMING for fault in EVERYWHERE if (endpoint, fault) not in ENDS),
    *((CHAT, fault) for fault in ("error-text", "error-then-done", "error-event", "empty-delta")),
    *((RESPONSES, fault) for fault in ("error-event", "error-flat", "failed")),
    (COMPLETIONS, "error-text"),
    (MESSAGES, "error-event"),
]
TOLD = {"error-frame", "error-event", "error-flat", "error-text", "error-then-done", "failed"}


async def watched(http: httpx.AsyncClient, endpoint: Endpoint, request: Json, gate: Gate) -> Outcome:
    """A stream whose first bytes are read before the upstream goes on behind the gate."""
    async with http.stream("POST", endpoint.path, json=request) as response:
        pieces = response.aiter_bytes()
        body = b""
        while not body or body.startswith(b": ping"):
            body = await anext(pieces)
        gate.open()
        broken = False
        try:
            async for piece in pieces:
                body += piece
        except httpx.TransportError:
            broken = True
        return Outcome(response.status_code, response.headers, body, broken)


@pytest.mark.parametrize(("endpoint", "fault"), BREAKS, ids=named)
async def test_a_stream_that_breaks_ends_with_an_error_and_is_not_kept(
    upstream: ScriptedUpstream, http: httpx.AsyncClient, endpoint: Endpoint, fault: str
) -> None:
    gate = upstream.gate()
    prompt = f"{marker()} [script:{fault} after=6 words=9 gate={gate.name}]"
    request = endpoint.request(prompt, stream=True)

    first = await watched(http, endpoint, request, gate)
    message = failed_inside(endpoint, first)
    assert message
    if fault in TOLD:
        assert "the model fell over" in message
    assert endpoint.streamed_text(first.body).startswith("answer-"), "what came before the break is delivered"
    assert len(upstream.visits(prompt)) == 1

    again = await ask(http, endpoint, request)
    assert failed(endpoint, again)
    assert again.cache != "HIT"
    assert len(upstream.visits(prompt)) == 2


@pytest.mark.parametrize(("endpoint", "fault"), ENDS, ids=named)
async def test_a_stream_that_ends_without_its_terminal_event_ends_for_the_client_too(
    upstream: ScriptedUpstream, http: httpx.AsyncClient, endpoint: Endpoint, fault: str
) -> None:
    """It is kept where every choice said that it was finished. Ollama's end without a word is handed on, not kept."""
    prompt = f"{marker()} [script:{fault} after=4]"
    request = endpoint.request(prompt, stream=True)
    first, again = await ask(http, endpoint, request), await ask(http, endpoint, request)
    for outcome in (first, again):
        assert outcome.status == 200
        assert not outcome.broken
        assert b"error" not in outcome.body
        assert b"[DONE]" not in outcome.body
        assert endpoint.streamed_text(outcome.body).startswith("answer-")
    kept = not endpoint.lines
    assert again.cache == ("HIT" if kept else "MISS")
    assert len(upstream.visits(prompt)) == (1 if kept else 2)
    if kept:
        assert again.body == first.body


@pytest.mark.parametrize("endpoint", [CHAT, COMPLETIONS, MESSAGES], ids=named)
async def test_a_stream_whose_body_does_not_tell_its_end_is_kept_with_its_terminal_event_only(
    upstream: ScriptedUpstream, http: httpx.AsyncClient, endpoint: Endpoint
) -> None:
    prompt = f"{marker()} [script:until-closed]"
    for count in (1, 2):
        outcome = await ask(http, endpoint, endpoint.request(prompt, stream=True))
        assert (outcome.status, outcome.cache) == (200, "MISS")
        assert endpoint.streamed_text(outcome.body).endswith(" four")
        assert b"error" not in outcome.body
        assert len(upstream.visits(prompt)) == count


@pytest.mark.parametrize("endpoint", [CHAT, COMPLETIONS, MESSAGES], ids=named)
async def test_a_stream_without_a_finish_reason_is_not_kept(
    upstream: ScriptedUpstream, http: httpx.AsyncClient, endpoint: Endpoint
) -> None:
    prompt = f"{marker()} [script:no-finish after=3]"
    for count in (1, 2):
        outcome = await ask(http, endpoint, endpoint.request(prompt, stream=True))
        assert outcome.cache != "HIT"
        assert len(upstream.visits(prompt)) == count


@pytest.mark.parametrize("endpoint", STREAMING, ids=named)
async def test_a_stream_is_complete_with_its_terminal_event(http: httpx.AsyncClient, endpoint: Endpoint) -> None:
    """Whatever becomes of the connection after it: here FIN comes where the 0-chunk should be."""
    prompt = f"{marker()} [script:no-last-chunk after=3]"
    for _ in range(2):
        outcome = await ask(http, endpoint, endpoint.request(prompt, stream=True))
        assert not outcome.broken
        assert endpoint.streamed_text(outcome.body).endswith(" zero one two three four")


NO_STREAM = ("drop", "reset-at-once", "not-http", "html", "nothing", "short", "bad-json")


@pytest.mark.parametrize("fault", NO_STREAM)
@pytest.mark.parametrize("endpoint", STREAMING, ids=named)
async def test_a_stream_that_never_begins_is_an_error(
    upstream: ScriptedUpstream, http: httpx.AsyncClient, endpoint: Endpoint, fault: str
) -> None:
    prompt = f"{marker()} [script:{fault}]"
    request = endpoint.request(prompt, stream=True)
    outcome = await ask(http, endpoint, request)
    assert outcome.status == 502
    assert failed(endpoint, outcome)
    before = len(upstream.visits(prompt))

    again = await ask(http, endpoint, request)
    assert again.cache != "HIT"
    assert len(upstream.visits(prompt)) > before


@pytest.mark.parametrize("endpoint", STREAMING, ids=named)
async def test_a_plain_document_where_a_stream_was_asked_for_is_never_an_empty_success(
    upstream: ScriptedUpstream, http: httpx.AsyncClient, endpoint: Endpoint
) -> None:
    """SDKs read zero chunks and no error from a JSON body: it is given as a stream, or refused."""
    request = endpoint.request(f"{marker()} [script:plain-document]", stream=True)
    outcome = await ask(http, endpoint, request)
    if outcome.status == 200:
        assert endpoint.streamed_text(outcome.body).startswith("answer-")
    else:
        assert failed(endpoint, outcome)


@pytest.mark.parametrize(("script", "kept"), [("no-terminal after=4", False), ("", True)], ids=["open", "terminal"])
@pytest.mark.parametrize("endpoint", [CHAT, COMPLETIONS], ids=named)
async def test_choices_that_never_began_are_missed_where_the_stream_does_not_say_that_it_is_over(
    upstream: ScriptedUpstream, http: httpx.AsyncClient, endpoint: Endpoint, script: str, kept: bool
) -> None:
    """Two choices are asked for, one comes: servers without ``n`` say so with their terminal event."""
    prompt = f"{marker()} [script:{script}]" if script else marker()
    request = {**endpoint.request(prompt, stream=True), "n": 2}
    first, again = await ask(http, endpoint, request), await ask(http, endpoint, request)
    assert first.status == again.status == 200
    assert again.cache == ("HIT" if kept else "MISS")
    assert b"error" not in first.body


async def test_prompts_that_were_never_answered_are_missed(upstream: ScriptedUpstream, http: httpx.AsyncClient) -> None:
    word = marker()
    chunk = b'data: {"id":"c","choices":[{"index":0,"text":"x","finish_reason":"stop"}]}\n\n'
    upstream.answer_with(word, lambda visit: chunk, "text/event-stream")
    for count, prompt in ((1, [word, "b"]), (2, [word, "b"]), (3, [word]), (3, [word])):
        request = {**COMPLETIONS.request(word, stream=True), "prompt": prompt}
        assert (await ask(http, COMPLETIONS, request)).status == 200
        assert len(upstream.visits(word)) == count
