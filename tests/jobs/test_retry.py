"""Which failures are tried again, and after how long."""

import pytest

from llmproxy.jobs.retry import RetryDecision, asked_seconds, decide, pause_after
from llmproxy.wire.errors import (
    BadRequest,
    Conflict,
    InternalError,
    NotFound,
    OnlyIfCached,
    ProxyError,
    TooMany,
    Unavailable,
    UpstreamBroke,
    UpstreamRefused,
    UpstreamSlow,
    UpstreamStatus,
    envelope,
)


def answered(status: int, type: str = "server_error", **headers: str) -> UpstreamStatus:
    """The model server's own error."""
    given = tuple((name.replace("_", "-").encode(), value.encode()) for name, value in headers.items())
    return UpstreamStatus(status, envelope("no", type), given)


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        # nobody there, or not there yet
        (UpstreamRefused("refused"), RetryDecision.WAIT),
        (answered(503, "unavailable_error"), RetryDecision.WAIT),
        # what may pass
        (UpstreamBroke("broke"), RetryDecision.AGAIN),
        (UpstreamSlow("slow"), RetryDecision.AGAIN),
        (answered(408), RetryDecision.AGAIN),
        (answered(409), RetryDecision.AGAIN),
        (answered(429, "rate_limit_error"), RetryDecision.AGAIN),
        (answered(500), RetryDecision.AGAIN),
        (answered(503), RetryDecision.AGAIN),
        (answered(529), RetryDecision.AGAIN),
        (Unavailable("the database"), RetryDecision.AGAIN),
        (InternalError("a defect"), RetryDecision.AGAIN),
        # what would come again
        (answered(400, "invalid_request_error"), RetryDecision.END),
        (answered(404), RetryDecision.END),
        (answered(422), RetryDecision.END),
        (answered(500, x_should_retry="false"), RetryDecision.END),
        (answered(501, x_should_retry="false"), RetryDecision.END),
        (BadRequest("bad"), RetryDecision.END),
        (NotFound("no such model"), RetryDecision.END),
        (Conflict("not now"), RetryDecision.END),
        (TooMany("ours"), RetryDecision.END),
        (OnlyIfCached("not there"), RetryDecision.END),
    ],
    ids=lambda value: f"{type(value).__name__}-{value.http_status}" if isinstance(value, ProxyError) else str(value),
)
def test_what_follows_from_a_failure(error: ProxyError, expected: RetryDecision) -> None:
    assert decide(error) is expected


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({}, 0.0),
        ({"retry_after": "7"}, 7.0),
        ({"retry_after_ms": "1500"}, 1.5),
        ({"retry_after": "7", "retry_after_ms": "1500"}, 1.5),
        ({"retry_after": "soon"}, 0.0),
        ({"retry_after": "inf"}, 0.0),
        ({"retry_after": "nan"}, 0.0),
        ({"retry_after": "-3"}, 0.0),
        ({"retry_after": "86400"}, 300.0),
        ({"retry_after": "Fri, 01 Jan 2100 00:00:00 GMT"}, 300.0),
        ({"retry_after": "Thu, 01 Jan 1970 00:00:00 GMT"}, 0.0),
        ({"retry_after": "7", "retry_after_ms": "soon"}, 7.0),
    ],
)
def test_what_the_model_server_asks_for(headers: dict[str, str], seconds: float) -> None:
    assert asked_seconds(answered(429, **headers)) == seconds


def test_a_pause_is_at_least_what_was_asked_for() -> None:
    assert pause_after(1, answered(429, retry_after="90")) == 90.0
    assert pause_after(1, answered(429, retry_after="0")) >= 0.25
