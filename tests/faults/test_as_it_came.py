"""What the proxy cannot keep, parse or render reaches the client as the upstream sent it, and is asked for anew."""

import json
from collections.abc import AsyncIterator, Iterator

import httpx
import pytest

from tests.conftest import sound
from tests.faults.outcome import Outcome, ask, failed
from tests.scripted import CHAT, COMPLETIONS, MESSAGES, RESPONSES, STREAMING, Endpoint, marker, named
from tests.scripted_upstream import ScriptedUpstream
from tests.scripted_upstream.bodies import LOOSE, TEXTS
from tests.server import Proxy

SSE = (CHAT, COMPLETIONS, RESPONSES, MESSAGES)


@pytest.fixture(scope="module")
def streamer() -> Iterator[ScriptedUpstream]:
    """A server that looks like llama.cpp, which is asked for streams whatever the caller wants."""
    with ScriptedUpstream("llamacpp") as upstream:
        yield upstream


@pytest.fixture(scope="module")
def streamer_front(streamer: ScriptedUpstream, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Proxy]:
    with Proxy(streamer.url, database=tmp_path_factory.mktemp("streamer") / "llmproxy.db") as proxy:
        yield proxy
    sound(proxy)


@pytest.fixture
async def streamer_http(streamer_front: Proxy) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(base_url=streamer_front.url, timeout=60, trust_env=False) as client:
        yield client


async def asked_twice(
    http: httpx.AsyncClient, upstream: ScriptedUpstream, endpoint: Endpoint, prompt: str, *, stream: bool
) -> list[Outcome]:
    """Two answers to the same request, neither of them from the cache."""
    request = endpoint.request(prompt, stream=stream)
    outcomes = []
    for count in (1, 2):
        outcomes.append(await ask(http, endpoint, request))
        assert outcomes[-1].cache == "MISS"
        assert not outcomes[-1].broken
        assert len(upstream.visits(prompt)) == count
    return outcomes


@pytest.mark.parametrize("name", TEXTS)
@pytest.mark.parametrize("endpoint", STREAMING, ids=named)
async def test_a_body_that_is_no_answer_arrives_with_its_content_type(
    upstream: ScriptedUpstream, http: httpx.AsyncClient, endpoint: Endpoint, name: str
) -> None:
    for outcome in await asked_twice(http, upstream, endpoint, f"{marker()} [script:{name}]", stream=False):
        assert (outcome.status, outcome.headers["content-type"], outcome.body) == (200, *TEXTS[name])


@pytest.mark.parametrize("name", ["text", "array", "number"])
@pytest.mark.parametrize("endpoint", STREAMING, ids=named)
async def test_also_where_a_stream_was_asked_for(
    upstream: ScriptedUpstream, http: httpx.AsyncClient, endpoint: Endpoint, name: str
) -> None:
    for outcome in await asked_twice(http, upstream, endpoint, f"{marker()} [script:{name}]", stream=True):
        assert (outcome.status, outcome.headers["content-type"], outcome.body) == (200, *TEXTS[name])


@pytest.mark.parametrize("name", LOOSE)
@pytest.mark.parametrize("endpoint", STREAMING, ids=named)
async def test_a_document_that_is_no_strict_json_arrives_untouched(
    upstream: ScriptedUpstream, http: httpx.AsyncClient, endpoint: Endpoint, name: str
) -> None:
    for outcome in await asked_twice(http, upstream, endpoint, f"{marker()} [script:{name}]", stream=False):
        assert outcome.status == 200
        assert outcome.headers["content-type"] == "application/json; charset=utf-8"
        assert outcome.body.startswith(b'{"odd": ')
        assert endpoint.text(json.loads(outcome.body.decode("utf-8", "replace"), strict=False)).startswith("answer-")


@pytest.mark.parametrize("name", LOOSE)
@pytest.mark.parametrize("endpoint", STREAMING, ids=named)
async def test_frames_that_cannot_be_kept_arrive_untouched(
    upstream: ScriptedUpstream, http: httpx.AsyncClient, endpoint: Endpoint, name: str
) -> None:
    for outcome in await asked_twice(http, upstream, endpoint, f"{marker()} [script:{name}-frames]", stream=True):
        assert outcome.status == 200
        end = b"\n" if endpoint.lines else b"\n\n"
        assert outcome.body.count(end) >= 7
        assert b'"odd":' in outcome.body
        assert b"upstream_error" not in outcome.body
        assert b" four" in outcome.body


@pytest.mark.parametrize("endpoint", STREAMING, ids=named)
async def test_frames_that_are_nested_deeply_arrive_untouched(http: httpx.AsyncClient, endpoint: Endpoint) -> None:
    request = endpoint.request(f"{marker()} [script:deep-frames]", stream=True)
    for _ in range(2):
        outcome = await ask(http, endpoint, request)
        assert (outcome.status, outcome.broken) == (200, False)
        assert outcome.body.count(b'"deep":') >= 7
        assert endpoint.streamed_text(outcome.body).endswith(" four")


@pytest.mark.parametrize("endpoint", [CHAT, COMPLETIONS], ids=named)
async def test_an_event_that_is_null_arrives_with_the_others(http: httpx.AsyncClient, endpoint: Endpoint) -> None:
    request = endpoint.request(f"{marker()} [script:null-frame]", stream=True)
    for _ in range(2):
        outcome = await ask(http, endpoint, request)
        assert outcome.body.startswith(b"data: null\n\n")
        assert outcome.body.endswith(b"data: [DONE]\n\n")


@pytest.mark.parametrize("name", ["nan-frames", "surrogate-frames", "control-frames", "not-utf8-frames"])
@pytest.mark.parametrize("endpoint", [CHAT, COMPLETIONS], ids=named)
async def test_what_a_stream_does_not_amount_to_is_asked_for_plainly(
    streamer: ScriptedUpstream, streamer_http: httpx.AsyncClient, endpoint: Endpoint, name: str
) -> None:
    """The server was asked for a stream to notice when the caller leaves; its plain answer is what the caller gets."""
    prompt = f"{marker()} [script:{name}]"
    outcome = await ask(streamer_http, endpoint, endpoint.request(prompt))
    assert outcome.status == 200
    assert endpoint.text(json.loads(outcome.body)).startswith("answer-")
    assert [visit.json.get("stream") for visit in streamer.visits(prompt)] == [True, False]


@pytest.mark.parametrize("name", ["stream-as-json", "stream-as-text", "stream-as-nothing"])
@pytest.mark.parametrize("endpoint", STREAMING, ids=named)
async def test_a_stream_is_one_whatever_its_content_type(
    upstream: ScriptedUpstream, http: httpx.AsyncClient, endpoint: Endpoint, name: str
) -> None:
    prompt = f"{marker()} [script:{name}]"
    request = endpoint.request(prompt, stream=True)
    first, again = await ask(http, endpoint, request), await ask(http, endpoint, request)
    assert endpoint.streamed_text(first.body).endswith(" zero one two three four")
    assert first.headers["content-type"] == ("application/x-ndjson" if endpoint.lines else "text/event-stream")
    assert (again.cache, again.body) == ("HIT", first.body)


@pytest.mark.parametrize("endpoint", SSE, ids=named)
async def test_a_document_is_one_whatever_its_content_type(
    upstream: ScriptedUpstream, http: httpx.AsyncClient, endpoint: Endpoint
) -> None:
    request = endpoint.request(f"{marker()} [script:document-as-stream]")
    first, again = await ask(http, endpoint, request), await ask(http, endpoint, request)
    assert endpoint.text(json.loads(first.body)).startswith("answer-")
    assert first.headers["content-type"] == "application/json"
    assert (again.cache, again.body) == ("HIT", first.body)


@pytest.mark.parametrize("status", [201, 202, 203, 206, 207, 226, 299, 300, 301, 302, 303, 307, 308])
@pytest.mark.parametrize("stream", [False, True], ids=["plain", "stream"])
@pytest.mark.parametrize("endpoint", [CHAT, RESPONSES, MESSAGES], ids=named)
async def test_a_status_that_is_neither_success_nor_error_is_handed_on(
    upstream: ScriptedUpstream, http: httpx.AsyncClient, endpoint: Endpoint, stream: bool, status: int
) -> None:
    prompt = f"{marker()} [script:status={status}]"
    for outcome in await asked_twice(http, upstream, endpoint, prompt, stream=stream):
        assert outcome.status == status
        assert outcome.headers["location"] == "/elsewhere"
        assert outcome.headers["content-type"].startswith("application/json")
        assert json.loads(outcome.body)["error"]["message"] == f"refused with {status}"


@pytest.mark.parametrize("status", [204, 205, 304])
async def test_a_status_without_a_body_is_handed_on(
    upstream: ScriptedUpstream, http: httpx.AsyncClient, status: int
) -> None:
    prompt = f"{marker()} [script:status={status} shape=empty]"
    for outcome in await asked_twice(http, upstream, CHAT, prompt, stream=False):
        assert (outcome.status, outcome.body) == (status, b"")


@pytest.mark.parametrize("status", [101, 600, 777, 999])
async def test_a_status_that_is_none_is_an_error(http: httpx.AsyncClient, status: int) -> None:
    cached = await ask(http, CHAT, CHAT.request(f"{marker()} [script:status={status} shape=text]"))
    passed = await http.get(f"/play/status/{status}")
    for code, body in ((cached.status, cached.body), (passed.status_code, passed.content)):
        assert code == 502
        assert f"status {status}" in json.loads(body)["error"]["message"]


@pytest.mark.parametrize("name", ["error-member", "null-answer", "no-answer"])
@pytest.mark.parametrize("endpoint", SSE, ids=named)
async def test_what_is_no_answer_is_no_empty_stream(
    upstream: ScriptedUpstream, http: httpx.AsyncClient, endpoint: Endpoint, name: str
) -> None:
    for outcome in await asked_twice(http, upstream, endpoint, f"{marker()} [script:{name}]", stream=True):
        assert outcome.status == 502
        assert failed(endpoint, outcome)


@pytest.mark.parametrize("name", ["null-answer", "no-answer"])
@pytest.mark.parametrize("endpoint", STREAMING, ids=named)
async def test_what_is_no_answer_is_handed_on_to_plain_callers_and_not_kept(
    upstream: ScriptedUpstream, http: httpx.AsyncClient, endpoint: Endpoint, name: str
) -> None:
    for outcome in await asked_twice(http, upstream, endpoint, f"{marker()} [script:{name}]", stream=False):
        assert outcome.status == 200
        assert json.loads(outcome.body)


@pytest.mark.parametrize("endpoint", [CHAT, COMPLETIONS, RESPONSES], ids=named)
@pytest.mark.parametrize("plain_first", [True, False])
async def test_a_deeply_nested_answer_is_no_error_in_any_form(
    http: httpx.AsyncClient, endpoint: Endpoint, plain_first: bool
) -> None:
    prompt = f"{marker()} [script:deep]"
    for stream in (not plain_first, plain_first, not plain_first):
        outcome = await ask(http, endpoint, endpoint.request(prompt, stream=stream))
        assert outcome.status == 200
        assert b"answer-" in outcome.body
        assert b'"deep"' in outcome.body


@pytest.mark.parametrize("endpoint", SSE, ids=named)
async def test_an_error_by_the_name_of_its_event_ends_the_stream_and_keeps_its_members(
    upstream: ScriptedUpstream, http: httpx.AsyncClient, endpoint: Endpoint
) -> None:
    for outcome in await asked_twice(http, upstream, endpoint, f"{marker()} [script:named-error]", stream=True):
        assert outcome.status == 200, "what came before it is delivered, however quickly it came"
        assert endpoint.streamed_text(outcome.body).startswith("answer-")
        error = endpoint.decoded(outcome.body)[-1]["error"]
        assert error["message"] == "the model fell over"
        assert error["code"] == 429
        assert error["metadata"] == {"provider": "p"}


@pytest.mark.parametrize("endpoint", [CHAT, COMPLETIONS], ids=named)
async def test_a_document_without_its_usual_members_is_given_as_a_stream_too(
    http: httpx.AsyncClient, endpoint: Endpoint
) -> None:
    request = endpoint.request(f"{marker()} [script:bare]", stream=True)
    first, again = await ask(http, endpoint, request), await ask(http, endpoint, request)
    assert endpoint.streamed_text(first.body).endswith(" four")
    assert (again.cache, again.body) == ("HIT", first.body)
