import re
from pathlib import Path

from llmproxy.observe.catalogue import Catalogue
from llmproxy.observe.page import render

PAGE = Path(__file__).parents[2] / "docs" / "metrics.md"


def test_the_page_is_up_to_date() -> None:
    assert PAGE.read_text() == render(), "python -m llmproxy.observe.page > docs/metrics.md"


def test_every_metric_follows_the_naming_rules() -> None:
    for series in Catalogue().all():
        assert series.name.startswith("llmproxy_")
        assert series.name.endswith("_total") == (series.kind == "counter")
        assert series.name.endswith("_seconds") == (series.kind == "histogram")
        assert f"`{series.name}`" in render()


def test_every_label_is_explained() -> None:
    for label in {label for series in Catalogue().all() for label in series.labels}:
        assert re.search(rf"\n\|[^|]*`{label}`[^|]*\|", render().partition("## Labels")[2]), label
