import re
from pathlib import Path

from llmproxy.observe.catalogue import Catalogue
from llmproxy.observe.page import render

PAGE = Path(__file__).parents[2] / "docs" / "metrics.md"


def test_the_page_is_up_to_date() -> None:
    assert PAGE.read_text() == render(), "python -m llmproxy.observe.page > docs/metrics.md"


def test_every_metric_follows_the_naming_rules() -> None:
    for series in Catalogue().all():
        assert series.name.startswith(("llmproxy_", "gen_ai_"))
        assert series.name.endswith("_total") == (series.kind == "counter")
        # the conventions' unit of tokens has no name in Prometheus
        histogram_of_tokens = series.name == "gen_ai_client_token_usage"
        assert series.name.endswith("_seconds") or series.kind != "histogram" or histogram_of_tokens
        assert f"`{series.name}`" in render()


def test_what_all_processes_share_is_marked() -> None:
    shared = {series.name for series in Catalogue().all() if series.shared}
    assert shared == {
        "llmproxy_database_bytes",
        "llmproxy_database_limit_bytes",
        "llmproxy_job_items",
        "llmproxy_job_oldest_item_seconds",
    }
    assert "| `llmproxy_database_bytes` | gauge, shared |" in render()
    assert "| `llmproxy_requests_in_flight` | gauge |" in render()


def test_every_label_is_explained() -> None:
    for label in {label for series in Catalogue().all() for label in series.labels}:
        assert re.search(rf"\n\|[^|]*`{label}`[^|]*\|", render().partition("## Labels")[2]), label
