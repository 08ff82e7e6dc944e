"""The page ``docs/metrics.md``, made from the catalogue of metrics."""

from llmproxy.observe.catalogue import DURATIONS, Catalogue
from llmproxy.observe.collectors import Series

HEAD = """\
# Metrics for Prometheus

<!-- Rendered from llmproxy/observe/catalogue.py by `make docs`. -->

`GET /metrics` in Prometheus's text format. Beside these there are the `process_*`
metrics that every Prometheus client has. Those named `gen_ai_*` are of calls to model servers, by the names of
OpenTelemetry's conventions for generative AI: other gateways have them, too.

[deploy](../deploy/README.md) has scrape configuration, alerts and dashboards.

The last column says what every process of one database shows alike; see [below](#several-processes).

| metric | type | labels | meaning | shared |
|---|---|---|---|---|
"""

LABELS = """
## Labels

| label | values |
|---|---|
| `endpoint` | the endpoint's name, `other` for paths that are passed through |
| `model` | the model asked for; from the 101st distinct name on, and for names no upstream has answered to, `other` |
| `cache` | `hit`, `miss`, `joined`, `bypass`, `stale`; `none` where the cache has no part |
| `reason` | why: the words of `Cache-Status`; `none` where there is none |
| `status` | the HTTP status of the answer; of items of jobs: `waiting` or `running` |
| `phase` | a phase of the life of a request |
| `tier` | a tier of the cache |
| `upstream` | an upstream's base URL |
| `kind` | what sort of fault, or of job, it was |
| `step`, `outcome` | which part of a job, and what came of the try |
| `state` | of memory: `total` or `available` |
| `type` | `prompt` or `completion` |
| `part` | what failed: a receiver of finished requests, or a source of values |
| `version`, `python` | of the program, and of what runs it |
| `gen_ai_operation_name` | `chat`, `text_completion`, `embeddings` or `rerank` |
| `gen_ai_provider_name` | the kind of the model server: `llama.cpp`, `ollama`, or `openai` for any other |
| `gen_ai_request_model` | the model asked for; from the 21st distinct name on `other` |
| `gen_ai_token_type` | `input` or `output` |
| `error_type` | the HTTP status of a call that failed, `_OTHER` for a stream that broke off; absent on a success |

No label holds what callers make up without bound: 10,000 invented names of models are 100 series and `other`.

## Buckets

Histograms of `llmproxy_*` have these upper bounds, in seconds: """

QUERIES = """

## Several processes

Each process has a `/metrics` of its own, and Prometheus tells them apart by `instance`: scrape every one of them.
A server has it on its port, `llmproxy worker` on the port of `LLMPROXY_WORKER_METRICS_PORT`. What is shared
is of the database, where all see the same: it takes `max` over the processes, never `sum`; everything else takes
`sum`. Each process has a tier `memory` to itself. `/api/performance` knows what all processes kept, of the others
without the last minute.

## Questions

Hit rate:

    sum(rate(llmproxy_requests_total{cache=~"hit|stale"}[5m]))
      / sum(rate(llmproxy_requests_total{cache=~"hit|stale|miss|joined"}[5m]))

Errors:

    sum(rate(llmproxy_requests_failed_total[5m])) / sum(rate(llmproxy_requests_total[5m]))

95th percentile of what the proxy itself adds to a chat:

    histogram_quantile(0.95, sum by (le) (rate(llmproxy_overhead_seconds_bucket{endpoint="chat"}[5m])))

GPU hours saved in a day:

    increase(llmproxy_saved_generation_seconds_total[1d]) / 3600
"""


def page() -> str:
    """The whole page, in Markdown."""
    rows = "".join(map(_row, Catalogue().all()))
    return HEAD + rows + LABELS + ", ".join(f"{bound:g}" for bound in DURATIONS) + "." + QUERIES


def _row(series: Series) -> str:
    labels = ", ".join(f"`{label}`" for label in series.labels)
    return f"| `{series.name}` | {series.kind} | {labels} | {series.help} | {_shared(series)} |\n"


def _shared(series: Series) -> str:
    if series.shared:
        return "yes"
    return ", ".join(sorted(f"`{value}`" for labels in series.shared_series for value in labels))
