"""Whether a call that failed is tried again, and when. Pure."""

from enum import StrEnum
from time import time

from llmproxy.runtime.background import Backoff
from llmproxy.wire.errors import ProxyError, UpstreamError, UpstreamRefused, UpstreamStatus
from llmproxy.wire.headers import retry_after_seconds

#: statuses after which the same request may succeed; the SDKs' own list
_PASSING = frozenset({408, 409, 429})

MOST_ASKED_SECONDS = 300.0

BACKOFF = Backoff()


class RetryDecision(StrEnum):
    #: the answer, or an error that would come again
    END = "end"
    #: another attempt, if there is one left
    AGAIN = "again"
    #: no server was there: not an attempt at all
    WAIT = "wait"


def decide(error: ProxyError) -> RetryDecision:
    """Decides what follows from a call's failure."""
    if isinstance(error, UpstreamRefused) or _is_loading(error):
        return RetryDecision.WAIT
    should_retry = next((value for name, value in error.headers if name == b"x-should-retry"), b"")
    if should_retry == b"false":
        return RetryDecision.END
    if isinstance(error, UpstreamError) and (error.http_status >= 500 or error.http_status in _PASSING):
        return RetryDecision.AGAIN
    # our own 500 may be a defect, and a defect may be an accident of the moment
    return RetryDecision.AGAIN if error.http_status in (500, 503) else RetryDecision.END


def _is_loading(error: ProxyError) -> bool:
    """llama.cpp while it loads a model: it is not there yet."""
    return (
        isinstance(error, UpstreamStatus)
        and error.http_status == 503
        and error.document()["error"].get("type") == "unavailable_error"
    )


def pause_after(failures: int, error: ProxyError) -> float:
    """Seconds of pause after so many failures, at least what the upstream asked for in ``error``."""
    return max(BACKOFF.seconds(failures), asked_seconds(error))


def asked_seconds(error: ProxyError) -> float:
    """``retry-after-ms`` or ``retry-after`` of an error in seconds, 0 if it has none that can be read.

    A server that asks for more than ``MOST_ASKED_SECONDS`` is asked again earlier.
    """
    return min(retry_after_seconds(error.headers, time()), MOST_ASKED_SECONDS)
