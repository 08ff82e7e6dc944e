"""What metrics, rates and logs read of a request. The notebook of a request has this shape; so may anything else."""

from collections.abc import Mapping
from typing import Any, Protocol


class Tokens(Protocol):
    """Tokens of one answer; None where the upstream did not say."""

    @property
    def prompt_tokens(self) -> int | None: ...
    @property
    def completion_tokens(self) -> int | None: ...


class Answered(Protocol):
    """What many requests with the same answer have in common. Words are "" or None where there are none."""

    @property
    def method(self) -> str: ...
    @property
    def path(self) -> str: ...
    @property
    def endpoint(self) -> str: ...
    @property
    def model(self) -> str: ...
    @property
    def status(self) -> int: ...
    @property
    def cache(self) -> str | None: ...
    @property
    def reason(self) -> str | None: ...
    @property
    def usage(self) -> Tokens: ...
    @property
    def upstream_seconds(self) -> float | None:
        """Seconds the upstream worked for this answer; on a hit: what it had taken then."""
        ...


class Observed(Answered, Protocol):
    """One finished request. Times are ``time.perf_counter()`` seconds unless named ``_at`` (Unix)."""

    @property
    def request_id(self) -> str: ...
    @property
    def upstream(self) -> str: ...
    @property
    def stream(self) -> bool: ...
    @property
    def stored(self) -> str | None: ...
    @property
    def error(self) -> str: ...
    @property
    def started(self) -> float: ...
    @property
    def started_at(self) -> float: ...
    @property
    def first_byte(self) -> float | None: ...
    @property
    def finished(self) -> float | None: ...
    @property
    def phases(self) -> Mapping[Any, float]:
        """Phase (a ``str``) -> seconds. ``Any``, because a mapping's key type is invariant."""
        ...


def seconds_of(observed: Observed) -> float:
    """How long the request took; 0 for one that was never finished."""
    return 0.0 if observed.finished is None else observed.finished - observed.started


def first_byte_seconds_of(observed: Observed) -> float | None:
    """How long the first byte of the answer took, None where there was none."""
    return None if observed.first_byte is None else observed.first_byte - observed.started


def failed(observed: Observed) -> bool:
    """Whether the proxy or the upstream failed the request, be it in the middle of a stream whose status was 200."""
    return observed.status >= 500 or (observed.status < 400 and observed.error != "")
