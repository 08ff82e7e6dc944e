"""Plain answers that fail, and streams that fail under a caller who asked for a plain answer."""

from collections.abc import AsyncIterator, Iterator

import httpx
import pytest

from tests.conftest import sound
from tests.faults.outcome import ask, envelope, failed, refused
from tests.scripted import CHAT, COMPLETIONS, RESPONSES, STREAMING, Endpoint, marker, named
from tests.scripted_upstream import ScriptedUpstream
from tests.scripted_upstream.refusals import SHAPES
from tests.server import Proxy


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


@pytest.mark.parametrize("fault", ["drop", "reset-at-once", "not-http", "short", "half-chunked"])
@pytest.mark.parametrize("endpoint", STREAMING, ids=named)
async def test_a_broken_plain_answer_is_a_502_and_is_not_kept(
    upstream: ScriptedUpstream, http: httpx.AsyncClient, endpoint: Endpoint, fault: str
) -> None:
    prompt = f"{marker()} [script:{fault}]"
    outcome = await ask(http, endpoint, endpoint.request(prompt))
    assert outcome.status == 502
    refused(outcome, endpoint.path)
    before = len(upstream.visits(prompt))

    again = await ask(http, endpoint, endpoint.request(prompt))
    assert again.status == 502
    assert len(upstream.visits(prompt)) > before


@pytest.mark.parametrize("fault", ["html", "nothing", "bad-json", "error-member", "unfinished"])
@pytest.mark.parametrize("endpoint", STREAMING, ids=named)
async def test_a_whole_answer_that_is_not_complete_is_not_kept(
    upstream: ScriptedUpstream, http: httpx.AsyncClient, endpoint: Endpoint, fault: str
) -> None:
    prompt = f"{marker()} [script:{fault}]"
    for count in (1, 2):
        outcome = await ask(http, endpoint, endpoint.request(prompt))
        assert outcome.cache != "HIT"
        assert len(upstream.visits(prompt)) == count


WITHIN = ("cut", "reset", "bad-chunk", "clean-end", "half-frame", "error-frame", "router-text")
UNDERNEATH = [
    *((endpoint, fault) for endpoint in (CHAT, COMPLETIONS, RESPONSES) for fault in WITHIN),
    (RESPONSES, "no-terminal"),
    *((CHAT, fault) for fault in ("empty-delta", "error-text", "error-then-done")),
    *((RESPONSES, fault) for fault in ("failed", "error-event")),
]


@pytest.mark.parametrize(("endpoint", "fault"), UNDERNEATH, ids=named)
async def test_a_plain_caller_gets_a_502_when_the_stream_underneath_breaks(
    streamer: ScriptedUpstream, streamer_http: httpx.AsyncClient, endpoint: Endpoint, fault: str
) -> None:
    prompt = f"{marker()} [script:{fault} after=4]"
    for count in (1, 2):
        outcome = await ask(streamer_http, endpoint, endpoint.request(prompt))
        assert outcome.status == 502
        refused(outcome)
        assert len(streamer.visits(prompt)) == count


@pytest.mark.parametrize("endpoint", [CHAT, COMPLETIONS], ids=named)
async def test_a_stream_underneath_without_a_finish_reason_is_not_kept(
    streamer: ScriptedUpstream, streamer_http: httpx.AsyncClient, endpoint: Endpoint
) -> None:
    prompt = f"{marker()} [script:no-finish after=3]"
    for count in (1, 2):
        outcome = await ask(streamer_http, endpoint, endpoint.request(prompt))
        assert outcome.cache != "HIT"
        assert len(streamer.visits(prompt)) == count


@pytest.mark.parametrize("endpoint", [CHAT, COMPLETIONS], ids=named)
async def test_a_server_whose_streams_have_no_terminal_event_answers_plain_callers_too(
    streamer: ScriptedUpstream, streamer_http: httpx.AsyncClient, endpoint: Endpoint
) -> None:
    """A fork of llama.cpp without ``[DONE]``: its answers are whole once every choice has finished, and kept."""
    prompt = f"{marker()} [script:no-terminal after=4]"
    first = await ask(streamer_http, endpoint, endpoint.request(prompt))
    assert first.status == 200
    assert endpoint.text(httpx.Response(200, content=first.body).json()).endswith(" zero one two three four")
    again = await ask(streamer_http, endpoint, endpoint.request(prompt))
    assert (again.cache, again.body) == ("HIT", first.body)
    assert len(streamer.visits(prompt)) == 1


@pytest.mark.parametrize("endpoint", [CHAT, COMPLETIONS, RESPONSES], ids=named)
async def test_a_plain_caller_gets_the_whole_answer_of_the_stream_underneath(
    streamer: ScriptedUpstream, streamer_http: httpx.AsyncClient, endpoint: Endpoint
) -> None:
    prompt = f"{marker()} [script:words=9]"
    first = await ask(streamer_http, endpoint, endpoint.request(prompt))
    visit = streamer.visits(prompt)[0]
    assert visit.json["stream"] is True
    answer = httpx.Response(200, content=first.body).json()
    assert endpoint.text(answer).startswith(f"answer-{visit.number} zero one")
    streamed = await ask(streamer_http, endpoint, endpoint.request(prompt, stream=True))
    assert streamed.cache == "HIT"
    assert endpoint.streamed_text(streamed.body) == endpoint.text(answer)


NAMES = ("openai", "llamacpp", "ollama", "fastapi", "array", "text", "html", "empty", "not-text")


@pytest.mark.parametrize("stream", [False, True], ids=["plain", "stream"])
@pytest.mark.parametrize("shape", NAMES)
async def test_every_shape_of_error_is_one_of_openais(
    upstream: ScriptedUpstream, http: httpx.AsyncClient, shape: str, stream: bool
) -> None:
    prompt = f"{marker()} [script:status=422 shape={shape}]"
    for count in (1, 2):
        outcome = await ask(http, CHAT, CHAT.request(prompt, stream=stream))
        assert outcome.status == 422
        if shape in ("openai", "llamacpp"):
            # it is one already
            assert outcome.body == SHAPES[shape](422)[1]
            assert outcome.headers["content-type"] == "application/json; charset=utf-8"
        else:
            message = str(refused(outcome)["message"])
            assert "422" in message or shape == "empty"
            assert "<html" not in message
        assert len(upstream.visits(prompt)) == count


async def test_the_members_of_a_context_overflow_are_kept(http: httpx.AsyncClient) -> None:
    prompt = f"{marker()} [script:status=400 shape=llamacpp-context]"
    error = httpx.Response(200, content=(await ask(http, CHAT, CHAT.request(prompt))).body).json()["error"]
    assert error["type"] == "exceed_context_size_error"
    assert error["code"] == 400
    assert error["n_prompt_tokens"] == 3031
    assert error["n_ctx"] == 1024


async def test_a_loading_model_is_a_503_with_a_time_to_come_back(http: httpx.AsyncClient) -> None:
    prompt = f"{marker()} [script:status=503 shape=llamacpp-loading]"
    outcome = await ask(http, CHAT, CHAT.request(prompt, stream=True))
    assert outcome.status == 503
    assert 1 <= float(outcome.headers["retry-after"]) <= 5


@pytest.mark.parametrize(("status", "shape"), [(500, "llamacpp-image"), (501, "llamacpp")])
async def test_an_error_that_will_not_go_away_says_so(http: httpx.AsyncClient, status: int, shape: str) -> None:
    outcome = await ask(http, CHAT, CHAT.request(f"{marker()} [script:status={status} shape={shape}]"))
    assert outcome.status == status
    assert outcome.headers["x-should-retry"] == "false"


async def test_retry_headers_and_the_request_id_of_the_upstream_are_kept(
    upstream: ScriptedUpstream, http: httpx.AsyncClient
) -> None:
    prompt = f"{marker()} [script:status=429 retry=7]"
    outcome = await ask(http, CHAT, CHAT.request(prompt))
    assert outcome.headers["retry-after"] == "7"
    assert outcome.headers["x-request-id"]
    error = envelope(httpx.Response(200, content=outcome.body).json())
    assert error["code"] == "some_code"
    assert error["param"] == "messages"
    assert failed(CHAT, outcome) == "refused with 429"
