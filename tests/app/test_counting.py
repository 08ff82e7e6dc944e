"""What counts as a request, and as a failure, seen from outside."""

import json
import time
from typing import Any

from prometheus_client.parser import text_string_to_metric_families

from tests.conftest import MakeProxy
from tests.scripted import CHAT, marker
from tests.scripted_upstream import ScriptedUpstream
from tests.server import Line
from tests.timeouts import WAIT_SECONDS

JSON = ("content-type", "application/json")
ONLY = ("cache-control", "only-if-cached")


def _user(line: Line, name: str, requests: int) -> dict[str, Any]:
    """The totals of a user, once they hold so many requests: they are written behind."""
    deadline = time.monotonic() + WAIT_SECONDS
    while (found := _document(line, f"/api/users/{name}")).get("requests") != requests:
        assert time.monotonic() < deadline, found
    return found


def _document(line: Line, target: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(line.ask("GET", target).body)
    return found


def _samples(line: Line) -> list[tuple[str, dict[str, str], float]]:
    text = line.ask("GET", "/metrics").body.decode()
    return [
        (sample.name, sample.labels, sample.value)
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if "endpoint" in sample.labels or sample.name == "llmproxy_phase_seconds_count"
    ]


def test_the_page_health_and_scrapes_are_no_requests(proxy: MakeProxy, upstream: ScriptedUpstream) -> None:
    with proxy(upstream.url).line() as line:
        deadline = time.monotonic() + WAIT_SECONDS
        # the start waits for the model server's answer for a moment only
        while line.ask("GET", "/ready").status != 200:
            assert time.monotonic() < deadline
        for target in ("/health", "/ready", "/metrics", "/ui", "/ui/page.js", "/api/history", "/api/performance"):
            assert line.ask("GET", target).status == 200
        line.ask("GET", "/admin/jobs")
        # the scrape itself is in flight
        counted = [sample for sample in _samples(line) if sample[2] and sample[0] != "llmproxy_requests_in_flight"]
        assert counted == []
        body = json.dumps({"model": "scripted", "messages": [{"role": "user", "content": marker()}]}).encode()
        line.ask("POST", CHAT.path, [JSON], body)
        line.ask("GET", "/v1/models")
        requests = {labels["endpoint"] for name, labels, _ in _samples(line) if name == "llmproxy_requests_total"}
        assert "chat" in requests
        assert requests.isdisjoint({"health", "metrics", "ui", "ui-asset", "history", "admin-jobs"})


def test_only_if_cached_is_an_outcome_and_no_failure(proxy: MakeProxy, upstream: ScriptedUpstream) -> None:
    with proxy(upstream.url).line() as line:
        body = json.dumps({"model": "scripted", "messages": [{"role": "user", "content": marker()}]}).encode()
        labels = ("x-llmproxy-user", "ada")
        heard = line.ask("POST", CHAT.path, [JSON, ONLY, labels], body)
        assert (heard.status, heard.first("x-cache")) == (504, "MISS")
        assert line.ask("POST", CHAT.path, [JSON, labels], body).first("x-cache") == "MISS"
        assert line.ask("POST", CHAT.path, [JSON, ONLY, labels], body).first("x-cache") == "HIT"

        user = _user(line, "ada", 3)
        rows = _document(line, "/api/history?cache=only-if-cached")["data"]
        assert [row["status"] for row in rows] == [504]
        assert (user["requests"], user["errors"], user["hit_rate"]) == (3, 0, 1 / 3)
        total = _document(line, "/api/performance")["total"]
        assert (total["errors"], total["hit_rate"]) == (0, 1 / 3)
        assert {word: each["requests"] for word, each in total["by_cache"].items()} == {
            "hit": 1,
            "miss": 1,
            "only-if-cached": 1,
        }
        assert _document(line, "/api/cache/stats")["since_start"]["only_if_cached"] == 1
        why = _document(line, f"/api/history/{rows[0]['request_id']}/explain")["because"]
        assert "The answer was not kept: The request said 'Cache-Control: only-if-cached', and nothing" in why[1]
        counted = {
            labels["cache"]: value for name, labels, value in _samples(line) if name == "llmproxy_requests_total"
        }
        assert counted == {"hit": 1, "miss": 1, "only-if-cached": 1}
        failed = [value for name, labels, value in _samples(line) if name == "llmproxy_requests_failed_total"]
        assert failed == [0.0]
