"""Upstream calls by OpenTelemetry's names."""

import re
from typing import Any

import pytest

from llmproxy.observe.catalogue import Catalogue
from llmproxy.observe.metrics import OPERATIONS, Metrics
from llmproxy.wire.endpoints import ENDPOINTS
from llmproxy.wire.exchange import Usage
from llmproxy.wire.vocabulary import CacheStatus
from tests.observe.exchanges import hit, miss
from tests.observe.test_metrics import samples

CALL = {
    "gen_ai_operation_name": "chat",
    "gen_ai_provider_name": "llama.cpp",
    "gen_ai_request_model": "smollm2",
}
UPSTREAM = "http://127.0.0.1:8080"


def metrics() -> Metrics:
    made = Metrics("1.2.3")
    made.name_kinds(lambda upstream: "llama.cpp" if upstream == UPSTREAM else "")
    return made


def fetched(**changes: Any) -> Any:
    return miss(**{"upstream": UPSTREAM, "stream": True, **changes})


async def value(made: Metrics, name: str, **labels: str) -> float | None:
    return (await samples(made)).get((name, frozenset((CALL | labels).items())))


async def test_a_streamed_call() -> None:
    made = metrics()
    made.count([fetched()])
    assert await value(made, "gen_ai_client_operation_duration_seconds_sum", error_type="") == 4.0
    assert await value(made, "gen_ai_client_token_usage_sum", gen_ai_token_type="input") == 12
    assert await value(made, "gen_ai_client_token_usage_sum", gen_ai_token_type="output") == 34
    assert await value(made, "gen_ai_server_time_to_first_token_seconds_sum") == pytest.approx(1.0)
    assert await value(made, "gen_ai_server_time_per_output_token_seconds_sum") == pytest.approx(3.5 / 33)


async def test_a_plain_call_has_no_first_token() -> None:
    made = metrics()
    made.count([fetched(stream=False)])
    assert await value(made, "gen_ai_server_time_to_first_token_seconds_count") is None


@pytest.mark.parametrize(
    ("changes", "error"),
    [({"status": 502, "error": "no", "upstream_seconds": None}, "502"), ({"error": "it broke off"}, "_OTHER")],
)
async def test_a_call_that_failed(changes: dict[str, Any], error: str) -> None:
    made = metrics()
    made.count([fetched(model="smollm2"), fetched(**changes)])
    assert await value(made, "gen_ai_client_operation_duration_seconds_count", error_type=error) == 1
    assert await value(made, "gen_ai_client_token_usage_count", gen_ai_token_type="input") == 1


async def test_what_cost_no_call_is_not_counted() -> None:
    made = metrics()
    made.count([hit(), fetched(cache=CacheStatus.JOINED), fetched(upstream=""), fetched(endpoint="other")])
    made.count_many(hit(), [0.001])
    assert not [name for name, _ in await samples(made) if name.startswith("gen_ai_")]


async def test_odd_numbers_of_tokens_do_no_harm() -> None:
    made = metrics()
    made.count([fetched(usage=Usage(-1, 1)), fetched(usage=Usage(None, 0)), fetched(usage=Usage())])
    assert await value(made, "gen_ai_client_token_usage_count", gen_ai_token_type="input") is None
    assert await value(made, "gen_ai_server_time_per_output_token_seconds_count") is None


def test_every_endpoint_is_an_operation() -> None:
    assert {row.name for row in ENDPOINTS} == OPERATIONS.keys()


def test_the_names_are_the_conventions() -> None:
    """https://opentelemetry.io/docs/specs/semconv/gen-ai/gen-ai-metrics/, dots as underscores and the unit behind."""
    assert [series.name for series in Catalogue().all() if series.name.startswith("gen_ai")] == [
        "gen_ai_client_operation_duration_seconds",
        "gen_ai_client_token_usage",
        "gen_ai_server_time_to_first_token_seconds",
        "gen_ai_server_time_per_output_token_seconds",
    ]


async def test_ten_thousand_invented_models_are_few_series() -> None:
    made = metrics()
    endpoints = sorted(OPERATIONS) * 2_000
    made.count([fetched(model=f"junk-{number}", endpoint=endpoints[number]) for number in range(10_000)])
    lines = [line for line in (await made.exposition()).decode().splitlines() if not line.startswith("#")]
    assert {re.sub(r"^junk-\d+$", "junk", model) for model in re.findall('_model="([^"]*)"', "\n".join(lines))} == {
        "junk",
        "other",
    }
    assert len({re.findall('gen_ai_request_model="([^"]*)"', line)[0] for line in lines if "gen_ai_req" in line}) == 21
    assert len(lines) < 10_000
