import re
from pathlib import Path

import pytest

from llmproxy.cache.sql import SqlTier
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
    in_part = {series.name: series.shared_series for series in Catalogue().all() if series.shared_series}
    names = ("entries", "bytes", "limit_bytes")
    assert in_part == {f"llmproxy_cache_{name}": {(SqlTier.name,)} for name in names}


@pytest.mark.parametrize(
    ("metric", "together"),
    [
        ("requests_total", "sum"),
        ("requests_in_flight", "sum"),
        ("database_bytes", "one"),
        ("cache_bytes", "sum; `sql`: one"),
        ("upstream_up", "lowest"),
        ("build_info", "highest"),
        ("system_cpu_ratio", "newest"),
    ],
)
def test_each_row_says_what_several_processes_show_together(metric: str, together: str) -> None:
    (row,) = (line for line in render().splitlines() if line.startswith(f"| `llmproxy_{metric}` |"))
    assert row.endswith(f"| {together} |")


def test_every_label_is_explained() -> None:
    for label in {label for series in Catalogue().all() for label in series.labels}:
        assert re.search(rf"\n\|[^|]*`{label}`[^|]*\|", render().partition("## Labels")[2]), label
