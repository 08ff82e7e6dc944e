"""Finished exchanges for the tests of this room."""

from dataclasses import replace
from typing import Any

from llmproxy.wire.exchange import Exchange, Usage
from llmproxy.wire.vocabulary import CacheStatus, Phase, Reason

#: a hit that took 2 ms, of an answer that had taken 4 s
HIT = Exchange(
    request_id="req-1",
    method="POST",
    path="/v1/chat/completions",
    started=10.0,
    started_at=1_700_000_000.0,
    endpoint="chat",
    model="smollm2",
    cache=CacheStatus.HIT,
    reason=Reason.MEMORY,
    status=200,
    usage=Usage(12, 34),
    first_byte=10.001,
    finished=10.002,
    upstream_seconds=4.0,
    phases={Phase.KEY: 0.0005},
)


def hit(**changes: Any) -> Exchange:
    return replace(HIT, **changes)


def miss(**changes: Any) -> Exchange:
    """Took 4.5 s, 4 of them upstream."""
    fetched = replace(
        HIT, cache=CacheStatus.MISS, reason=Reason.ABSENT, stored=Reason.STORED, first_byte=11.0, finished=14.5
    )
    return replace(fetched, **changes)
