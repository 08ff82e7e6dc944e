"""Every expression of every panel and alert, asked of a real Prometheus that scrapes the program under load."""

import json
import re
import time
from collections.abc import Iterator

import httpx
import pytest
import yaml

from deploy.grafana.build import BOARDS
from deploy.grafana.panels import Figure, Query
from llmproxy.observe.catalogue import Catalogue
from tests.deploy.prometheus import DEPLOY, Prometheus
from tests.scripted import marker
from tests.scripted_upstream import ScriptedUpstream
from tests.server import Proxy
from tests.timeouts import WAIT_SECONDS

QUERIES = [
    pytest.param(query, id=f"{panel.title}: {query.legend or query.expression[:40]}")
    for board in BOARDS
    for panel in board.panels
    for query in panel.queries
]
ALERTS = {
    rule["alert"]: rule["expr"]
    for group in yaml.safe_load((DEPLOY / "prometheus" / "alerts.yml").read_text())["groups"]
    for rule in group["rules"]
}
#: there is no such series before the first fault
WITHOUT_DATA = {"LLMProxyStoreFaults"}

ENDINGS = ("_bucket", "_sum", "_count")
#: of every Prometheus client
PROCESS = {"process_cpu_seconds_total", "process_resident_memory_bytes", "process_open_fds"}

#: an alert's expression is a value, and a comparison at its end
_COMPARISON = re.compile(r"\s[<>]\s*[0-9.]+\s*$")
_METRIC = re.compile(r"\b((?:llmproxy|gen_ai|process)_[a-z_]+)(?=[{\[])")


@pytest.fixture(scope="module")
def prometheus(upstream: ScriptedUpstream, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prometheus]:
    """Has scraped the program before and after some load, so that everything has grown in between."""
    folder = tmp_path_factory.mktemp("prometheus")
    (folder / "prometheus").mkdir()
    with (
        Proxy(upstream.url, database=folder / "llmproxy.db") as proxy,
        Prometheus(folder / "prometheus", proxy.port) as made,
    ):
        for _ in range(3):
            load(proxy)
            made.scraped(time.time())
        yield made


def load(proxy: Proxy) -> None:
    """Of each kind a few: hits and misses, plain and streamed, a failure, a job."""
    with httpx.Client(base_url=proxy.url, trust_env=False, timeout=60) as client:

        def chat(prompt: str, *, stream: bool = False) -> httpx.Response:
            body = {"model": "scripted", "messages": [{"role": "user", "content": prompt}], "stream": stream}
            return client.post("/v1/chat/completions", json=body)

        for stream in (False, True):
            prompt = marker()
            for cache in ("MISS", "HIT", "HIT"):
                assert chat(prompt, stream=stream).headers["x-cache"] == cache
        assert chat(f"{marker()} [script:status=500]").status_code == 500
        assert client.post("/api/completions", json={"prompt": marker(), "background": True}).status_code == 202


def filled_in(query: Query, interval: str = "5m") -> str:
    """The expression as Grafana sends it, with rates over ``interval``."""
    return query.expression.replace("$__rate_interval", interval).replace("$__range", "1h").replace("$instance", ".*")


@pytest.mark.parametrize("query", QUERIES)
def test_every_panel_shows_something(prometheus: Prometheus, query: Query) -> None:
    assert prometheus.ask(filled_in(query)) or query.may_be_empty


def test_a_proxy_that_nobody_asks_is_shown_as_idle(prometheus: Prometheus) -> None:
    """Not as NaN, and not as busy with being scraped."""
    deadline = time.monotonic() + WAIT_SECONDS
    while prometheus.ask("sum(rate(llmproxy_requests_total[3s])) > 0"):
        assert time.monotonic() < deadline
    panels = {panel.title: panel for board in BOARDS for panel in board.panels}
    shown = {
        title: prometheus.shown(filled_in(panel.query, "3s"))
        for title, panel in panels.items()
        if isinstance(panel, Figure)
    }
    assert (shown["Requests"], shown["In flight"], shown["Hit rate"], shown["Errors"]) == ([0.0], [0.0], [], [])
    for query in panels["What the proxy adds"].queries:
        assert prometheus.ask(filled_in(query, "3s")) == []


@pytest.mark.parametrize("alert", sorted(ALERTS))
def test_every_alert_looks_at_something(prometheus: Prometheus, alert: str) -> None:
    value, comparisons = _COMPARISON.subn("", ALERTS[alert])
    assert comparisons == 1
    assert prometheus.ask(value) or alert in WITHOUT_DATA
    # the whole of it is understood; of a program that is well there is nothing to tell but of its few requests
    prometheus.ask(ALERTS[alert])


def test_prometheus_evaluates_every_alert(prometheus: Prometheus) -> None:
    while "unknown" in (health := prometheus.rules()).values():
        pass
    assert health == dict.fromkeys(ALERTS, "ok")


def test_what_is_asked_for_exists() -> None:
    """So that a query that may be empty is not empty for the want of a metric."""
    known: set[str] = set()
    for series in Catalogue().all():
        known |= {series.name} if series.kind != "histogram" else {f"{series.name}{end}" for end in ENDINGS}
    asked = [query.expression for board in BOARDS for panel in board.panels for query in panel.queries]
    asked += ALERTS.values()
    for name in {name for expression in asked for name in _METRIC.findall(expression)}:
        assert name in known or name in PROCESS, name


def test_the_dashboards_ask_what_the_declarations_say() -> None:
    for board in BOARDS:
        document = json.loads((DEPLOY / "grafana" / "dashboards" / f"{board.uid}.json").read_text())
        panels = [panel for panel in document["panels"] if panel["type"] != "row"]
        assert [[target["expr"] for target in panel["targets"]] for panel in panels] == [
            [query.expression for query in panel.queries] for panel in board.panels
        ]
        assert all(panel["description"] for panel in panels)
        # a number of now is asked for now, and not for each point of the time that is shown
        assert {target["instant"] for panel in panels if panel["type"] == "stat" for target in panel["targets"]} <= {
            True
        }
