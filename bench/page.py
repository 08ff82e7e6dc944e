"""docs/performance.md: what was measured, on what, and how it compares with what is wanted."""

from pathlib import Path

import phases
from compare import Plan, markdown, number

#: everything from this heading on is written by people, and stays
REMARKS = "## Remarks"

_INTRODUCTION = """# Performance

Written by `make bench` (`bench/`), but for the remarks at the end. Everything of llmproxy is on: SQLite on disk,
history with bodies, metrics, request log, compression; one process. The proxies and the stub called "direct" have one
core to themselves, the load generator and the upstream the other. The upstream is a stub that answers a chat
completion of 1 KB at once, or 100 SSE chunks. nginx caches POST bodies (`bench/nginx.conf`), LiteLLM has its cache in
memory. All of them are measured in one interleaved run; figures are medians over the rounds.

Absolute figures drift with whatever else the machine does. Compare figures of one run, by their ratios."""


def render(
    *,
    machine: dict[str, str],
    versions: dict[str, str],
    verdict: str,
    comparison: str,
    figures: dict,
    notes: list[str],
    plan: Plan,
) -> str:
    parts = [
        _INTRODUCTION,
        "## Targets",
        verdict,
        "## On what",
        markdown(["", ""], machine.items()).replace("---:", "---"),
        ", ".join(f"{name} {number}" for name, number in versions.items()) + ".",
        "## Side by side",
        f"{plan.rounds} rounds of {plan.seconds:g} s for each line. `{'`, `'.join(plan.modes)}`: see `bench/compare.py`.",
        comparison,
        "\n".join(f"* {note}" for note in notes),
        "## llmproxy alone",
        _alone(figures),
        "## What a miss costs, by place",
        "Microseconds of CPU time for each miss, by a sampling profiler (`bench/sampled.py`), which itself costs some. Each\n"
        "sample counts for the innermost file of llmproxy on the stack, libraries for their caller.",
        phases.table(figures["phases"]),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _alone(figures: dict) -> str:
    rows: list[list[str]] = []
    for kind in ("plain", "stream"):
        crowd = figures[f"crowd_{kind}"]
        what = f"100 callers ask the same at once ({kind}; the upstream takes 200 ms)"
        times = f"last answer {crowd['last'] * 1000:.0f} ms; a single caller {crowd['single'] * 1000:.0f} ms"
        rows.append([what, f"{crowd['calls']} upstream call; {times}"])
    for name, start in figures["start"].items():
        value = f"{start['seconds']:.2f} s; idle {start['memory']:.0f} MB resident"
        rows.append([f"{name}: start to the first 200 of a completion", value])
    rows.append(["memory for an entry over its stored bytes, 1,000 entries", f"{figures['entry']:.0f} B"])
    if table := figures.get("rows"):
        what = f"hit in the SQL tier, 1 connection, 1,000 rows and {table['rows']:,} rows ({number(table['bytes'] / 1e6)} MB)"
        value = f"p50 {number(table['small'])} us and {number(table['large'])} us; CPU {number(table['cpu'])} us"
        rows.append([what, value])
    rows += _of_jobs(figures["jobs"]) if "jobs" in figures else []
    if len(versions := figures["sql"]) > 1:
        value = "; ".join(f"{name} {number(p50)} us" for name, p50 in versions.items())
        rows.append(["hit in the SQL tier, 1 connection, 1,000 rows, p50", value])
    return markdown(["what", "measured"], rows).replace("---:", "---")


def _of_jobs(jobs: dict) -> list[list[str]]:
    rate, accepting, large, beside = (jobs[name] for name in ("rate", "accepting", "memory", "beside"))
    alone, with_batch = beside["alone"], beside["beside"]
    rates = "; ".join(f"{name} {value:,.0f} items/s" for name, value in jobs["rates"].items())
    return [
        ["a batch of 3,000 lines of the same kind, one version after the other", rates],
        [f"a batch of {rate['items']:,} lines, each a miss that is answered at once", f"{rate['rate']:,.0f} items/s"],
        ["accepting a background task, on the disk", f"p50 {accepting['p50']:.1f} ms, P95 {accepting['p95']:.1f} ms"],
        [
            f"a batch of {large['lines']:,} lines",
            f"read and checked in {large['validated']:.1f} s, done in {large['seconds']:.0f} s; memory "
            f"{large['idle']:.0f} MB before, {large['most']:.0f} MB at most; /health meanwhile p99 {large['p99']:.0f} ms, "
            f"at most {large['stall']:.0f} ms",
        ],
        [
            "an interactive request of 200 ms, four slots: alone, and beside a batch of 1,000 rows",
            f"p50 {alone['p50']:.0f} and {with_batch['p50']:.0f} ms, P95 {alone['p95']:.0f} and {with_batch['p95']:.0f} ms",
        ],
    ]


def write(path: Path, text: str) -> None:
    """Keeps the remarks that are there."""
    old = path.read_text() if path.exists() else ""
    at = old.find(REMARKS)
    path.write_text(text + ("\n" + old[at:] if at >= 0 else ""))
