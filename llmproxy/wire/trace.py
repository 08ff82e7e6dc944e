"""Where a request stands in a distributed trace (W3C Trace Context). Rooms know no more of tracing than this."""

from collections.abc import Iterable
from typing import Protocol

Headers = list[tuple[bytes, bytes]]


class Trace(Protocol):
    """The part of one request in a trace."""

    def passed_on(self, headers: Headers) -> Headers:
        """A client's headers as the upstream gets them: what they say of the trace is replaced by our part in it."""
        ...


class Tracer(Protocol):
    """Begins the part of a request in its trace."""

    def begin(self, headers: Iterable[tuple[bytes, bytes]], started_at: float) -> Trace:
        """``headers`` are the client's, names in lower case; ``started_at`` is in Unix seconds. Raises nothing."""
        ...
