"""Spans of real requests, as a collector gets them."""

import socket
from collections.abc import Iterator
from itertools import pairwise

import httpx
import pytest
from opentelemetry.proto.trace.v1.trace_pb2 import Status

from tests.conftest import MakeProxy
from tests.observe.otel.collector import Collector, words
from tests.scripted import marker
from tests.scripted_upstream import ScriptedUpstream

CHAT = "/v1/chat/completions"
TRACE = "0af7651916cd43dd8448eb211c80319c"
CALLER = "b7ad6b7169203331"
SAMPLED = {"traceparent": f"00-{TRACE}-{CALLER}-01", "tracestate": "vendor=1"}


def chat(prompt: str, **more: object) -> dict[str, object]:
    return {"model": "scripted", "messages": [{"role": "user", "content": prompt}], **more}


@pytest.fixture
def client(upstream: ScriptedUpstream, proxy: MakeProxy, wanted: Collector) -> Iterator[httpx.Client]:
    """Of a proxy that traces."""
    with httpx.Client(base_url=proxy(upstream.url).url, trust_env=False, timeout=60) as client:
        yield client


def test_a_request_has_a_span_and_its_phases_are_children(client: httpx.Client, wanted: Collector) -> None:
    prompt = marker()
    body = chat(prompt, temperature=0.5, max_tokens=9, stop="x")
    answer = client.post(CHAT, json=body, headers={"x-llmproxy-session": "session-7"})
    (span,) = wanted.requests(1)
    assert span.name == "chat scripted"
    assert len(span.trace_id) == 16
    assert span.parent_span_id == b""
    said = words(span.attributes)
    usage = answer.json()["usage"]
    assert (
        said.items()
        >= {
            "http.request.method": "POST",
            "url.path": CHAT,
            "http.response.status_code": 200,
            "gen_ai.operation.name": "chat",
            "gen_ai.conversation.id": "session-7",
            "gen_ai.provider.name": "openai",
            "gen_ai.request.model": "scripted",
            "gen_ai.request.temperature": 0.5,
            "gen_ai.request.max_tokens": 9,
            "gen_ai.request.stop_sequences": ["x"],
            "gen_ai.response.id": answer.json()["id"],
            "gen_ai.response.finish_reasons": ["stop"],
            "gen_ai.usage.input_tokens": usage["prompt_tokens"],
            "gen_ai.usage.output_tokens": usage["completion_tokens"],
            "llmproxy.cache": "miss",
            "llmproxy.reason": "absent",
            "llmproxy.stored": "stored",
            "llmproxy.request_id": answer.headers["x-request-id"],
        }.items()
    )
    phases = sorted(wanted.phases(span), key=lambda phase: phase.start_time_unix_nano)
    names = [phase.name for phase in phases]
    assert names[0] == "name"
    assert [name for name in names if name in ("key", "pick", "send", "tee")] == ["key", "pick", "send", "tee"]
    for before, after in pairwise(phases):
        assert before.end_time_unix_nano <= after.start_time_unix_nano + 1_000
    assert {phase.trace_id for phase in phases} == {span.trace_id}
    assert span.start_time_unix_nano <= phases[0].start_time_unix_nano
    service = wanted.resources[0]
    assert service.items() >= {"service.name": "llmproxy"}.items()
    assert {"service.version", "service.instance.id"} <= service.keys()


def test_what_was_asked_and_answered_stays_here(client: httpx.Client, wanted: Collector) -> None:
    prompt = marker()
    answer = client.post(CHAT, json=chat(prompt), headers={"authorization": "Bearer sk-secret"})
    wanted.requests(1)
    text = answer.json()["choices"][0]["message"]["content"]
    for secret in (prompt, text, "sk-secret"):
        assert not any(secret.encode() in sent for sent in wanted.raw)


def test_the_callers_trace_goes_on_to_the_upstream(
    client: httpx.Client, upstream: ScriptedUpstream, wanted: Collector
) -> None:
    prompt = marker()
    client.post(CHAT, json=chat(prompt), headers=SAMPLED)
    (span,) = wanted.requests(1)
    assert span.trace_id.hex() == TRACE
    assert span.parent_span_id.hex() == CALLER
    (visit,) = upstream.journal.visits(prompt)
    assert visit.header("traceparent") == f"00-{TRACE}-{span.span_id.hex()}-01"
    assert visit.header("tracestate") == "vendor=1"
    assert [name for name, _ in visit.headers].count(b"traceparent") == 1


def test_what_is_passed_through_is_traced_too(
    client: httpx.Client, upstream: ScriptedUpstream, wanted: Collector
) -> None:
    sought = marker()
    client.get(f"/anything?{sought}", headers=SAMPLED)
    (span,) = wanted.requests(1)
    assert words(span.attributes).items() >= {"llmproxy.cache": "bypass", "url.path": "/anything"}.items()
    (visit,) = upstream.journal.visits(sought)
    assert visit.header("traceparent") == f"00-{TRACE}-{span.span_id.hex()}-01"


def test_each_hit_has_a_span_of_its_own(client: httpx.Client, wanted: Collector) -> None:
    body = chat(marker())
    answers = [client.post(CHAT, json=body, headers=SAMPLED) for _ in range(4)]
    spans = wanted.requests(4)
    assert [answer.headers["x-cache"] for answer in answers] == ["MISS", "HIT", "HIT", "HIT"]
    assert [words(span.attributes)["llmproxy.cache"] for span in spans] == ["miss", "hit", "hit", "hit"]
    assert len({span.span_id for span in spans}) == 4
    # the last two were answered by their bytes, and belong to the caller's trace all the same
    assert {(span.trace_id.hex(), span.parent_span_id.hex()) for span in spans} == {(TRACE, CALLER)}
    assert [words(span.attributes)["llmproxy.request_id"] for span in spans] == [
        answer.headers["x-request-id"] for answer in answers
    ]


def test_a_trace_that_its_caller_does_not_record_is_not_recorded(
    client: httpx.Client, upstream: ScriptedUpstream, wanted: Collector
) -> None:
    quiet, loud = marker(), marker()
    client.post(CHAT, json=chat(quiet), headers={"traceparent": f"00-{TRACE}-{CALLER}-00"})
    client.post(CHAT, json=chat(loud))
    (span,) = wanted.requests(1)
    assert span.trace_id.hex() != TRACE
    (visit,) = upstream.journal.visits(quiet)
    sent = visit.header("traceparent") or ""
    assert sent.startswith(f"00-{TRACE}-")
    assert sent.endswith("-00")
    assert all(span.trace_id.hex() != TRACE for span in wanted.spans)


def test_a_traceparent_that_is_none_begins_a_new_trace(
    client: httpx.Client, upstream: ScriptedUpstream, wanted: Collector
) -> None:
    prompt = marker()
    client.post(CHAT, json=chat(prompt), headers={b"traceparent": b"00-\xff-junk", b"tracestate": b"vendor=1"})
    (span,) = wanted.requests(1)
    assert span.parent_span_id == b""
    (visit,) = upstream.journal.visits(prompt)
    # flags: sampled, and a newer SDK says that the id is random, too
    assert visit.header("traceparent") in [f"00-{span.trace_id.hex()}-{span.span_id.hex()}-0{flags}" for flags in "13"]
    assert visit.header("tracestate") is None


@pytest.mark.parametrize(
    ("fault", "streamed", "status", "error"),
    [("drop", False, 502, "502"), ("cut", True, 200, "_OTHER")],
    ids=["drop", "cut"],
)
def test_a_failure_is_one_in_its_span(
    client: httpx.Client, wanted: Collector, fault: str, streamed: bool, status: int, error: str
) -> None:
    answer = client.post(CHAT, json=chat(f"{marker()} [script:{fault}]", stream=streamed))
    assert answer.status_code == status
    (span,) = wanted.requests(1)
    assert span.status.code == Status.STATUS_CODE_ERROR
    assert span.status.message
    assert words(span.attributes)["error.type"] == error


def test_a_refusal_is_the_clients_doing(client: httpx.Client, wanted: Collector) -> None:
    assert client.post(CHAT, content=b"{").status_code == 400
    (span,) = wanted.requests(1)
    assert span.status.code == Status.STATUS_CODE_UNSET
    assert words(span.attributes).items() >= {"error.type": "400", "http.response.status_code": 400}.items()


def test_health_and_metrics_are_asked_too_often_to_be_traced(client: httpx.Client, wanted: Collector) -> None:
    assert client.get("/health").status_code == 200
    assert client.get("/metrics").status_code == 200
    client.post(CHAT, json=chat(marker()))
    assert [span.name for span in wanted.requests(1)] == ["chat scripted"]


def test_the_calls_of_a_job_belong_to_the_trace_of_whoever_submitted_it(
    client: httpx.Client, upstream: ScriptedUpstream, wanted: Collector
) -> None:
    prompt = marker()
    body = {"model": "scripted", "input": prompt, "background": True}
    answer = client.post("/v1/responses", json=body, headers=SAMPLED)
    assert answer.status_code == 200, answer.text
    spans = wanted.requests(2)
    assert {span.trace_id.hex() for span in spans} == {TRACE}
    upstream.journal.wait(prompt)
    (visit,) = upstream.journal.visits(prompt)
    assert (visit.header("traceparent") or "").split("-")[2] in {span.span_id.hex() for span in spans}


def test_without_a_collector_the_callers_trace_passes_through(
    upstream: ScriptedUpstream, proxy: MakeProxy, collector: Collector, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", collector.url)
    monkeypatch.setenv("OTEL_SDK_DISABLED", "true")
    prompt = marker()
    server = proxy(upstream.url)
    httpx.post(f"{server.url}{CHAT}", json=chat(prompt), headers=SAMPLED, trust_env=False)
    (visit,) = upstream.journal.visits(prompt)
    assert visit.header("traceparent") == SAMPLED["traceparent"]
    server.stop()
    assert collector.raw == []


def test_a_collector_that_refuses_is_counted_and_disturbs_nobody(
    upstream: ScriptedUpstream, proxy: MakeProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Collector(status=400) as refusing:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", refusing.url)
        monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "50")
        server = proxy(upstream.url)
        with httpx.Client(base_url=server.url, trust_env=False, timeout=60) as client:
            for number in (1, 2):
                # an export is counted when it has ended, and the next begins after that
                assert client.post(CHAT, json=chat(marker())).status_code == 200
                refusing.requests(number)
            page = client.get("/metrics").text
        assert 'llmproxy_observe_faults_total{part="traces"}' in page


def test_a_collector_that_is_silent_does_not_hold_up_the_end(
    upstream: ScriptedUpstream, proxy: MakeProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        # nobody accepts from its queue
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", f"http://127.0.0.1:{silent.getsockname()[1]}")
        server = proxy(upstream.url, shutdown_seconds=1)
        httpx.post(f"{server.url}{CHAT}", json=chat(marker()), trust_env=False)
        # raises where it takes longer than any patience
        server.stop()
