"""What was added up, as the document that people and programs read. Pure."""

from collections.abc import Iterable, Mapping
from typing import Any

from llmproxy.observe.distribution import ERROR
from llmproxy.observe.performance import Cell, Cells, PerformanceSeries
from llmproxy.wire.vocabulary import HITS, LOOKED_UP, SAVED


def report(cells: Cells, start: float, until: float) -> dict[str, Any]:
    """JSON-ready: all requests of the window, and those of each endpoint and model, the busiest first.

    ``start`` and ``until`` in Unix seconds.
    """
    seconds = max(until - start, 1.0)
    groups: dict[tuple[str, str], Cells] = {}
    for series, cell in cells.items():
        groups.setdefault((series.endpoint, series.model), {})[series] = cell
    split = [
        {"endpoint": endpoint, "model": model, **_figures(group, seconds), "by_cache": _by_cache(group, seconds)}
        for (endpoint, model), group in groups.items()
    ]
    return {
        "from": start,
        "until": until,
        "seconds": seconds,
        "quantile_error": ERROR,
        "total": {**_figures(cells, seconds), "by_cache": _by_cache(cells, seconds)},
        "models": sorted(split, key=lambda each: each["requests"], reverse=True),
    }


def _figures(cells: Mapping[PerformanceSeries, Cell], seconds: float) -> dict[str, Any]:
    looked_up = sum(cell.requests for series, cell in cells.items() if series.cache in LOOKED_UP)
    hits = sum(cell.requests for series, cell in cells.items() if series.cache in HITS)
    saved = [cell for series, cell in cells.items() if series.cache in SAVED]
    return {
        **_of(_all(cells.values()), seconds),
        "hit_rate": hits / looked_up if looked_up else None,
        "saved": {
            "upstream_seconds": sum(cell.upstream_seconds for cell in saved),
            "prompt_tokens": sum(cell.prompt_tokens for cell in saved),
            "completion_tokens": sum(cell.completion_tokens for cell in saved),
        },
    }


def _by_cache(cells: Mapping[PerformanceSeries, Cell], seconds: float) -> dict[str, Any]:
    words = sorted({series.cache for series in cells})
    return {word: _of(_all(cell for series, cell in cells.items() if series.cache == word), seconds) for word in words}


def _of(cell: Cell, seconds: float) -> dict[str, Any]:
    return {
        "requests": cell.requests,
        "requests_per_second": cell.requests / seconds,
        "errors": cell.errors,
        "error_rate": cell.errors / cell.requests if cell.requests else None,
        "duration_seconds": cell.durations.summary(),
        "first_token_seconds": cell.first_tokens.summary(),
        "tokens_per_second": cell.speeds.summary(),
        "prompt_tokens": cell.prompt_tokens,
        "completion_tokens": cell.completion_tokens,
    }


def _all(cells: Iterable[Cell]) -> Cell:
    together = Cell()
    for cell in cells:
        together.merge(cell)
    return together
