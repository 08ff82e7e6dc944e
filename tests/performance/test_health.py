"""``GET /api/health`` from outside."""

import sqlite3
from contextlib import closing

from tests.conftest import MakeProxy
from tests.databases import ruin_sqlite
from tests.performance.asking import chat, scrape, told
from tests.scripted_upstream import ScriptedUpstream
from tests.server import Proxy

NOWHERE = "http://127.0.0.1:9"


def test_all_is_well(proxy: MakeProxy, upstream: ScriptedUpstream) -> None:
    server = proxy(upstream.url)
    chat(server)
    document = told(server, "/api/health")
    assert document["status"] == "ok"
    assert document["database"]["state"] == "ok"
    assert document["database"]["latency_seconds"] > 0
    assert {name: (tier["state"], tier["last_error"]) for name, tier in document["cache"].items()} == {
        "memory": ("ok", None),
        "sql": ("ok", None),
    }
    assert all(tier["latency_seconds"] > 0 for tier in document["cache"].values())
    assert document["queue"]["state"] == "ok"
    (only,) = document["upstreams"]
    assert (only["name"], only["kind"], only["state"], only["last_error"]) == (upstream.url, "openai", "ok", None)
    assert only["latency_seconds"] > 0


def test_one_upstream_of_two_is_down(proxy: MakeProxy, upstream: ScriptedUpstream) -> None:
    document = told(proxy(upstream.url, NOWHERE), "/api/health")
    assert document["status"] == "degraded"
    silent = document["upstreams"][1]
    assert (silent["name"], silent["state"], silent["latency_seconds"]) == (NOWHERE, "down", None)
    assert silent["last_error"]
    assert silent["failed_at"] > 1_600_000_000


def test_no_upstream_answers(proxy: MakeProxy) -> None:
    document = told(proxy(NOWHERE), "/api/health", status=503)
    assert document["status"] == "down"
    assert document["database"]["state"] == "ok"


def test_what_failed_and_works_again_is_still_told(proxy: MakeProxy) -> None:
    with ScriptedUpstream() as own:
        server = proxy(own.url)
        own.down()
        assert chat(server) >= 500
        assert told(server, "/api/health", status=503)["status"] == "down"
        own.up()
        while _status(server, "/ready") != 200:
            pass
        document = told(server, "/api/health")
        assert document["status"] == "ok"
        assert document["upstreams"][0]["last_error"]


def test_a_database_at_fault(proxy: MakeProxy, upstream: ScriptedUpstream) -> None:
    server = proxy(upstream.url)
    ruin_sqlite(server.database)
    # answered all the same; what fails is noticed by it
    assert chat(server) == 200
    document = told(server, "/api/health")
    assert document["status"] == "degraded"
    assert document["database"]["state"] == "down"
    assert document["database"]["last_error"] == "corrupt"
    assert document["database"]["latency_seconds"] is None
    while told(server, "/api/health")["cache"]["sql"]["state"] != "degraded":
        pass
    assert told(server, "/api/health")["cache"]["sql"]["last_error"]
    assert told(server, "/api/performance?window=5m")["complete"] is False


def test_a_database_that_answers_and_takes_nothing(proxy: MakeProxy, upstream: ScriptedUpstream) -> None:
    server = proxy(upstream.url)
    with closing(sqlite3.connect(server.database, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        assert chat(server) == 200
        while told(server, "/api/health")["database"]["state"] != "degraded":
            pass
        document, samples = told(server, "/api/health"), scrape(server)
        other.execute("COMMIT")
    assert any(sample.startswith("llmproxy_observe_faults_total{") for sample in samples)
    assert document["status"] == "degraded"
    # whoever waits for the file, or for who waits for it
    assert document["database"]["last_error"] in ("locked", "timeout")
    assert document["database"]["failed_at"] > 1_600_000_000
    assert document["database"]["latency_seconds"] > 0
    # the row of the chat was only late
    while not told(server, "/api/history")["data"]:
        pass


def _status(server: Proxy, target: str) -> int:
    with server.line() as line:
        return line.ask("GET", target).status
