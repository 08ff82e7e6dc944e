import re

from docs.render.metrics import page
from llmproxy.cache.sql import SqlTier
from llmproxy.observe.catalogue import Catalogue


def test_every_metric_follows_the_naming_rules() -> None:
    for series in Catalogue().all():
        assert series.name.startswith(("llmproxy_", "gen_ai_"))
        assert series.name.endswith("_total") == (series.kind == "counter")
        # the conventions' unit of tokens has no name in Prometheus
        histogram_of_tokens = series.name == "gen_ai_client_token_usage"
        assert series.name.endswith("_seconds") or series.kind != "histogram" or histogram_of_tokens
        assert f"`{series.name}`" in page()


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


def test_every_label_is_explained() -> None:
    for label in {label for series in Catalogue().all() for label in series.labels}:
        assert re.search(rf"\n\|[^|]*`{label}`[^|]*\|", page().partition("## Labels")[2]), label
