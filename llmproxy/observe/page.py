"""Renders ``docs/metrics.md`` from the catalogue: ``python -m llmproxy.observe.page > docs/metrics.md``."""

import sys

from llmproxy.observe.catalogue import DURATIONS, Catalogue
from llmproxy.observe.collectors import Across, Series

HEAD = """\
# Metrics

<!-- Rendered from llmproxy/observe/catalogue.py by `make docs`. -->

`GET /metrics` in Prometheus's text format. Beside these there are the `process_*`
metrics that every Prometheus client has. Those named `gen_ai_*` are of calls to model servers, by the names of
OpenTelemetry's conventions for generative AI: other gateways have them, too.

[deploy](../deploy/README.md) has scrape configuration, alerts and dashboards.

The last column says what several processes show together; see [below](#several-processes).

| metric | type | labels | meaning | together |
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

Give all processes of a machine the same folder in `PROMETHEUS_MULTIPROC_DIR`: `llmproxy serve`, any number of them, and
`llmproxy worker`, which has no `/metrics` of its own. Then `/metrics` of each server shows all of them; scrape one of
them only, or everything is there twice. Without the folder nothing is written, and each shows itself.

| together | |
|---|---|
| sum | Counters and histograms: of all processes, those that ended included. Gauges: of those that run. |
| lowest, highest | Of the processes that run. A model server that one of them does not reach is not up. |
| newest | Of the machine: the value that was read last. |
| one | Of the database, where all see the same: the value of the process that is asked. |

`process_*` are sums as well, but for `process_start_time_seconds`, which is that of the process that was started last.

However a process ends, its gauges end with it, and its counts stay. They are written once a second and before they are
shown: a `kill -9` loses what was counted since, and no sum ever falls. A process that starts goes on in the files of
one that ended, so there are as many as there were processes at once. They have the form of prometheus-client's
multiprocess mode. The folder is made where there is none; it must be on a file system of this machine, and may be
emptied when no process runs. What fails there is counted as `llmproxy_observe_faults_total{part="processes"}`;
`/metrics` then shows of the others what was read last.

Of several machines, or without a folder, scrape one process of each machine, or every process; Prometheus tells them
apart by `instance`. What is one here takes `max` there, never `sum`; so does the tier `sql`, while each process has a
tier `memory` to itself. `/api/performance` knows what all of them kept, of the others without the last minute.

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

#: how the values of several processes become one
TOGETHER = {Across.SUM: "sum", Across.MIN: "lowest", Across.MAX: "highest", Across.NEWEST: "newest"}


def render() -> str:
    """The whole page, in Markdown."""
    rows = "".join(map(_row, Catalogue().all()))
    return HEAD + rows + LABELS + ", ".join(f"{bound:g}" for bound in DURATIONS) + "." + QUERIES


def _row(series: Series) -> str:
    labels = ", ".join(f"`{label}`" for label in series.labels)
    return f"| `{series.name}` | {series.kind} | {labels} | {series.help} | {_together(series)} |\n"


def _together(series: Series) -> str:
    if series.shared:
        return "one"
    same = ", ".join(sorted(f"`{value}`" for labels in series.shared_series for value in labels))
    return TOGETHER[series.across] + (f"; {same}: one" if same else "")


if __name__ == "__main__":
    sys.stdout.write(render())
