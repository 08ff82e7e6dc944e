"""Whether a call that failed is tried again, and when. Pure."""

import re
from email.utils import parsedate_to_datetime
from enum import StrEnum
from time import time

from llmproxy.runtime.background import Backoff
from llmproxy.wire.errors import ProxyError, UpstreamError, UpstreamRefused, UpstreamStatus

#: statuses after which the same request may succeed; the SDKs' own list
_PASSING = frozenset({408, 409, 429})

MOST_ASKED_SECONDS = 300.0

BACKOFF = Backoff()


class RetryDecision(StrEnum):
    #: the answer, or an error that would come again
    END = "end"
    #: another attempt, if there is one left
    AGAIN = "again"
    #: nobody was there: not an attempt at all
    WAIT = "wait"


def verdict(error: ProxyError) -> RetryDecision:
    """What follows from a call's failure."""
    if isinstance(error, UpstreamRefused) or _is_loading(error):
        return RetryDecision.WAIT
    told = next((value for name, value in error.headers if name == b"x-should-retry"), b"")
    if told == b"false":
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
    """``retry-after-ms`` or ``retry-after`` of an error in seconds, 0 where it has none that can be read.

    A server that asks for more than ``MOST_ASKED_SECONDS`` is asked again earlier.
    """
    given = dict(error.headers)
    for name, unit in ((b"retry-after-ms", 0.001), (b"retry-after", 1.0)):
        seconds = _seconds(given.get(name, b"")) * unit
        if seconds:
            return min(seconds, MOST_ASKED_SECONDS)
    return 0.0


def _seconds(value: bytes) -> float:
    """Both forms of ``Retry-After`` (RFC 9110 section 10.2.3); 0 for what is neither."""
    if re.fullmatch(rb"[0-9]{1,12}(\.[0-9]{1,6})?", value):
        return float(value)
    try:
        return max(0.0, parsedate_to_datetime(value.decode("latin-1")).timestamp() - time())
    except (TypeError, ValueError, OverflowError):
        return 0.0
