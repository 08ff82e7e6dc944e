"""A run's result: as lines for people, and as JSON."""

from collections.abc import Iterator
from typing import Any

from llmproxy.cli.bench.figures import Figures
from llmproxy.cli.bench.run import BenchResult
from llmproxy.cli.bench.usage import Used
from llmproxy.cli.bench.words import order, share_of, time_of, usage_of
from llmproxy.cli.columns import NOTHING, aligned


def lines(result: BenchResult) -> Iterator[str]:
    """The table, and what it amounts to."""
    yield f"{result.url}, model {result.model}"
    yield ""
    rows = [["stage", "", "answers", "a second", "P50", "P95", "P99", "errors"]]
    for figures in result.stages:
        rows += _rows(figures)
    yield from aligned(rows, left=2)
    yield ""
    yield from aligned(_facts(result), left=2)
    for figures in result.stages:
        if figures.reason:
            yield f"{figures.name}: the first error was: {figures.reason}"


def document(result: BenchResult) -> dict[str, Any]:
    """JSON-ready. Times in seconds, shares from 0 to 1."""
    repeats = result.repeats
    return {
        "url": result.url,
        "model": result.model,
        "stages": {figures.name: figures.document() for figures in result.stages},
        "hits": {
            "quicker": quicker(result),
            "rate": _hit_rate(result),
            "asked": repeats.asked,
            "new": repeats.new,
            "repeats_spared": repeats.share,
        },
        "process": _process(result.used),
    }


def quicker(result: BenchResult) -> float | None:
    """By which share the median of the hits is below that of the misses, where both were asked one after the other."""
    first = result.stages[0]
    hit, miss = first.median("hit"), first.median("miss")
    return None if hit is None or not miss else 1 - hit / miss


def _rows(figures: Figures) -> Iterator[list[str]]:
    if figures.skipped:
        yield [figures.name, figures.skipped, *[NOTHING] * 6]
        return
    words = sorted(figures.times, key=order)
    for number, word in enumerate(words or [""]):
        times = figures.times.get(word)
        first = number == 0
        count = figures.answers if len(words) < 2 or times is None else times.count
        yield [
            figures.name if first else "",
            word,
            f"{count:,}",
            f"{figures.rate:,.1f}" if first else "",
            *(time_of(times.quantile(share) if times else None) for share in (0.5, 0.95, 0.99)),
            f"{figures.errors:,}" if first else "",
        ]


def _facts(result: BenchResult) -> Iterator[list[str]]:
    repeats = result.repeats
    yield ["hits are quicker by", share_of(quicker(result))]
    yield [
        "hit rate",
        f"{share_of(_hit_rate(result))} of {repeats.asked:,} popular questions, {repeats.new:,} of them new",
    ]
    yield ["repeats that needed no generation", share_of(repeats.share)]
    yield ["the proxy used", usage_of(result.used)]


def _hit_rate(result: BenchResult) -> float | None:
    asked = result.repeats.asked
    return result.stages[-1].count("hit") / asked if asked else None


def _process(used: Used | None) -> dict[str, Any] | None:
    return None if used is None else {"cpu": round(used.cpu, 3), "memory_bytes": used.memory}
