"""Renders ``docs/metrics.md`` from the catalogue: ``python -m llmproxy.observe.page > docs/metrics.md``."""

import sys

from llmproxy.observe.catalogue import DURATIONS, Catalogue
from llmproxy.observe.collectors import Series

HEAD = """\
# Metrics

<!-- Rendered from llmproxy/observe/catalogue.py by `make docs`. -->

`GET /metrics` in Prometheus's text format. Beside these there are the `process_*`
metrics that every Prometheus client has.

| metric | type | labels | meaning |
|---|---|---|---|
"""

LABELS = """
## Labels

| label | values |
|---|---|
| `endpoint` | the endpoint's name, `other` for paths that are passed through |
| `model` | the model asked for; from the 101st distinct name on, and for names no upstream has answered to, `other` |
| `cache` | `hit`, `miss`, `joined`, `bypass`, `stale`; `none` where the cache has no part |
| `reason` | why: the words of `Cache-Status`; `none` where there is none |
| `status` | the HTTP status of the answer |
| `phase` | a phase of the life of a request |
| `tier` | a tier of the cache |
| `upstream` | an upstream's base URL |
| `kind` | what sort of fault it was |
| `type` | `prompt` or `completion` |
| `part` | what failed: a receiver of finished requests, or a source of values |
| `version`, `python` | of the program, and of what runs it |

## Buckets

Histograms have these upper bounds, in seconds: """

QUERIES = """

## Questions

Hit rate:

    sum(rate(llmproxy_requests_total{cache=~"hit|stale"}[5m]))
      / sum(rate(llmproxy_requests_total{cache=~"hit|stale|miss|joined"}[5m]))

95th percentile of what the proxy itself adds to a chat:

    histogram_quantile(0.95, sum by (le) (rate(llmproxy_overhead_seconds_bucket{endpoint="chat"}[5m])))

GPU hours saved in a day:

    increase(llmproxy_saved_generation_seconds_total[1d]) / 3600
"""


def render() -> str:
    """The whole page, in Markdown."""
    rows = "".join(map(_row, Catalogue().all()))
    return HEAD + rows + LABELS + ", ".join(f"{bound:g}" for bound in DURATIONS) + "." + QUERIES


def _row(series: Series) -> str:
    labels = ", ".join(f"`{label}`" for label in series.labels)
    return f"| `{series.name}` | {series.kind} | {labels} | {series.help} |\n"


if __name__ == "__main__":
    sys.stdout.write(render())
