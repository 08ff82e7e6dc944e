"""``GET /api/performance`` from outside."""

from collections import Counter
from collections.abc import Callable

import pytest

from tests.conftest import MakeProxy
from tests.databases import PostgresServer, remove_sqlite
from tests.performance.asking import chat, scrape, told
from tests.scripted import marker
from tests.scripted_upstream import ScriptedUpstream
from tests.server import Proxy

Make = Callable[..., Proxy]


@pytest.fixture(params=["sqlite", "postgresql"])
def make(request: pytest.FixtureRequest, proxy: MakeProxy, upstream: ScriptedUpstream) -> Make:
    """Makes proxies that work on one database of each kind."""
    url = "" if request.param == "sqlite" else _url(request)

    def made(**settings: object) -> Proxy:
        return proxy(upstream.url, **({"database_url": url} if url else {}), **settings)

    return made


def _url(request: pytest.FixtureRequest) -> str:
    server: PostgresServer = request.getfixturevalue("postgres")
    return server.create()


def test_hits_and_misses_by_endpoint_and_model(make: Make) -> None:
    proxy, known = make(), marker()
    assert [chat(proxy, known, stream=True) for _ in range(3)] == [200, 200, 200]
    assert chat(proxy, model="another") == 200
    assert chat(proxy, f"{marker()} [script:status=500 shape=openai]") == 500
    document = told(proxy, "/api/performance?window=5m")
    assert (document["window"], document["complete"]) == ("5m", True)
    assert 0 < document["seconds"] <= 300
    assert {(each["endpoint"], each["model"]) for each in document["models"]} == {
        ("chat", "scripted"),
        ("chat", "another"),
    }
    scripted = document["models"][0]
    assert (scripted["model"], scripted["requests"], scripted["errors"]) == ("scripted", 4, 1)
    assert scripted["hit_rate"] == 0.5
    assert {word: each["requests"] for word, each in scripted["by_cache"].items()} == {"hit": 2, "miss": 2}
    hits, misses = scripted["by_cache"]["hit"], scripted["by_cache"]["miss"]
    # the failure took its time, but gave no answer
    assert (hits["duration_seconds"]["count"], misses["duration_seconds"]["count"]) == (2, 1)
    assert (hits["first_token_seconds"]["count"], misses["first_token_seconds"]["count"]) == (2, 1)
    assert misses["tokens_per_second"]["p50"] > 0
    assert hits["tokens_per_second"] is None
    assert scripted["saved"]["completion_tokens"] == 2 * misses["completion_tokens"] > 0
    for figures in (hits["duration_seconds"], misses["first_token_seconds"]):
        assert 0 < figures["p50"] <= figures["p95"] <= figures["p99"] <= figures["max"]
        assert figures["exact"]
    total = document["total"]
    assert (total["requests"], total["errors"], total["error_rate"]) == (5, 1, 0.2)


def test_what_the_program_uses(make: Make) -> None:
    now = told(make(), "/api/performance")["now"]
    assert now["resources"]["process_memory_bytes"] > 10_000_000
    assert now["resources"]["threads"] > 0
    assert 0 <= now["resources"]["system_cpu"] <= 1
    assert now["resources"]["event_loop_lag"].keys() == {"mean_seconds", "max_seconds"}
    assert now["queue"] == {"waiting": 0, "running": 0, "oldest_seconds": 0.0}
    assert now["database"]["bytes"] > 0


def test_each_kind_of_database_is_the_one_that_is_meant(make: Make, request: pytest.FixtureRequest) -> None:
    assert f"[{told(make(), '/api/health')['database']['kind']}]" in request.node.name


def test_it_survives_a_restart(make: Make) -> None:
    proxy, known = make(), marker()
    for _ in range(3):
        chat(proxy, known)
    before = told(proxy, "/api/performance?window=1h")
    proxy.stop()
    proxy.start()
    after = told(proxy, "/api/performance?window=1h")
    assert after["models"][0]["requests"] == 3
    # the rates follow from how long the window is
    for each in (before["total"], after["total"]):
        for figures in (each, *each["by_cache"].values()):
            del figures["requests_per_second"]
    assert after["total"] == before["total"]
    assert after["all_time"] == before["all_time"]
    assert (after["all_time"]["requests"], after["all_time"]["hit_rate"]) == (3, 2 / 3)
    for window in ("24h", "7d", "30d"):
        assert told(proxy, f"/api/performance?window={window}")["window"] == window


def test_the_past_step_by_step(make: Make) -> None:
    proxy, known = make(), marker()
    for _ in range(3):
        chat(proxy, known)
    for window, least in (("5m", 5), ("1h", 60), ("24h", 24), ("7d", 56), ("30d", 60)):
        document = told(proxy, f"/api/performance/series?window={window}")
        assert (document["window"], document["complete"]) == (window, True)
        steps = document["data"]
        assert least <= len(steps) <= least + 1
        times = [step["at"] for step in steps]
        assert times == list(range(times[0], times[-1] + 1, document["step_seconds"]))
        counted: Counter[str] = Counter()
        for step in steps:
            counted.update(step["requests"])
        assert counted == {"hit": 2, "miss": 1}
        # a step may have ended in between
        assert max(step["hit_seconds"] or 0 for step in steps) > 0
        fetched = {(step["fetched_seconds"], step["fetched_seconds_p95"]) for step in steps} - {(None, None)}
        assert [first == second > 0 for first, second in fetched] == [True]
        assert sum(step["saved_seconds"] for step in steps) > 0
        assert sum(step["errors"] for step in steps) == 0


def test_beyond_a_few_values_it_is_a_sketch(make: Make) -> None:
    proxy, known = make(), marker()
    for _ in range(260):
        chat(proxy, known)
    document = told(proxy, "/api/performance?window=5m")
    figures = document["models"][0]["by_cache"]["hit"]["duration_seconds"]
    assert (figures["count"], figures["exact"]) == (259, False)
    assert document["quantile_error"] == 0.01


def test_only_known_windows(front: Proxy) -> None:
    for window in ("5", "1d", "", "1h%00"):
        error = told(front, f"/api/performance?window={window}", status=400)["error"]
        assert error["param"] == "window"


def test_it_is_the_operators(proxy: MakeProxy, upstream: ScriptedUpstream) -> None:
    server = proxy(upstream.url, admin_token="secret", api_keys="caller-key")
    for path in ("/api/performance", "/api/health"):
        assert told(server, path, {"authorization": "Bearer caller-key"}, status=401)["error"]["type"]
        assert told(server, path, {"authorization": "Bearer secret"})
        # what only begins like it is nothing, and never goes to the model server
        told(server, f"{path}/more", {"authorization": "Bearer secret"}, status=404)


def test_without_jobs_there_is_no_queue(proxy: MakeProxy, upstream: ScriptedUpstream) -> None:
    server = proxy(upstream.url, jobs=False)
    assert told(server, "/api/performance")["now"]["queue"] is None
    assert told(server, "/api/health")["queue"]["state"] == "off"


def test_a_database_that_is_replaced_costs_what_it_held_and_no_more(
    proxy: MakeProxy, upstream: ScriptedUpstream
) -> None:
    server = proxy(upstream.url)
    remove_sqlite(server.database)
    chat(server)
    assert told(server, "/api/performance?window=5m")["total"]["requests"] == 1


def test_ten_thousand_invented_models_are_few_series(proxy: MakeProxy, upstream: ScriptedUpstream) -> None:
    """Names that no upstream has answered to, and then more believable ones than there is room for."""
    server = proxy(upstream.url, log_level="warning", history=False)
    with server.line() as line:
        for number in range(10_000):
            body = b'{"model":"junk-%d","messages":[],"max_tokens":1}' % number
            headers = [("content-type", "application/json"), ("cache-control", "only-if-cached")]
            assert line.ask("POST", "/v1/chat/completions", headers, body).status == 504
    for number in range(150):
        assert chat(server, model=f"believable-{number}") == 200
    samples = scrape(server)
    assert len(samples) < 3_000
    models = {part.split('"')[1] for sample in samples for part in sample.split(",") if part.startswith("model=")}
    assert len(models) == 101
    assert "other" in models
    assert not any("junk" in sample for sample in samples)
