"""The cache's statistics, as the running proxy's API gives them, in lines for people."""

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

from llmproxy.cli.columns import NOTHING, aligned, duration
from llmproxy.cli.failure import CommandFailed

#: name in the document -> as it is shown
_WINDOWS = {"since_start": "since start", "last_5_minutes": "last 5 minutes", "last_60_minutes": "last 60 minutes"}
_COUNTS = {"hits": "hits", "misses": "misses", "joins": "joined", "stale": "stale", "bypasses": "bypassed"}


def lines(document: dict[str, Any]) -> Iterator[str]:
    """What became of the requests, what that saved, and the tiers. Raises ``CommandFailed`` for another document."""
    try:
        yield from aligned(_requests(document))
        yield ""
        yield _saved(document["saved"])
        yield ""
        yield from aligned(_tiers(document["tiers"]))
        yield from _beside_the_tiers(document)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise CommandFailed("the proxy's answer is not understood; is it of this version? --json prints it") from error


def _requests(document: dict[str, Any]) -> Iterator[list[str]]:
    yield ["requests", *_COUNTS.values(), "hit rate"]
    for name, shown in _WINDOWS.items():
        window = document[name]
        rate = window["hit_rate"]
        yield [
            shown,
            *(f"{window[count]:,}" for count in _COUNTS),
            NOTHING if rate is None else f"{rate:.1%}",
        ]


def _saved(saved: dict[str, Any]) -> str:
    return (
        f"saved: {duration(saved['upstream_seconds'])} of generation, {saved['prompt_tokens']:,} prompt tokens, "
        f"{saved['completion_tokens']:,} completion tokens"
    )


def _tiers(tiers: dict[str, Any]) -> Iterator[list[str]]:
    yield ["tier", "entries", "MB", "hits", "evictions", "oldest entry"]
    for name, tier in tiers.items():
        oldest = tier["oldest"]
        yield [
            name,
            f"{tier['entries']:,}",
            f"{tier['bytes'] / 1e6:,.2f}",
            f"{tier['hits']:,}",
            f"{sum(tier['evictions'].values()):,}",
            NOTHING if oldest is None else f"{datetime.fromtimestamp(oldest, UTC):%Y-%m-%d %H:%M} UTC",
        ]


def _beside_the_tiers(document: dict[str, Any]) -> Iterator[str]:
    """A hit of embeddings comes from an entry for each of its texts, of any tier: it counts for none of them."""
    hits = document["since_start"]["hits"] - sum(tier["hits"] for tier in document["tiers"].values())
    if hits > 0:
        yield f"embeddings: {hits:,} more {'hit' if hits == 1 else 'hits'}, each from entries of any tier"
