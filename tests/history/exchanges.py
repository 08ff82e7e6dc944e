"""Finished exchanges for the tests of this room."""

from dataclasses import replace
from typing import Any

from llmproxy.wire.exchange import Caller, Exchange, Usage
from llmproxy.wire.vocabulary import CacheStatus, Phase, Reason

FETCHED = Exchange(
    request_id="req-1",
    method="POST",
    path="/v1/chat/completions",
    started=10.0,
    started_at=1_700_000_000.0,
    caller=Caller(name="ann", scope="secret"),
    endpoint="chat",
    model="smollm2",
    stream=True,
    session="s-1",
    user="u-1",
    namespace="n-1",
    identity="weights",
    query=b"api-version=1",
    upstream="http://127.0.0.1:8080",
    key="ab12",
    cache=CacheStatus.MISS,
    reason=Reason.ABSENT,
    stored=Reason.STORED,
    status=200,
    usage=Usage(12, 34),
    first_byte=11.0,
    finished=14.5,
    upstream_seconds=4.0,
    phases={Phase.LIMIT: 0.25},
    request_body=b"request",
    response_body=b"response",
    error="",
    recorded=True,
)


def fetched(**changes: Any) -> Exchange:
    return replace(FETCHED, **changes)
