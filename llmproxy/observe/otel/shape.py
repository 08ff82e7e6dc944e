"""What a span reads of a request."""

from typing import Any, Protocol

from llmproxy.observe.shape import Answered, Observed


class Like(Answered, Protocol):
    """What many requests with the same answer have in common."""

    @property
    def session(self) -> str: ...
    @property
    def request_body(self) -> bytes: ...
    @property
    def response_body(self) -> bytes: ...
    @property
    def trace(self) -> Any:
        """What ``Spans.begin`` gave for it; None where nothing was begun."""
        ...


class Traced(Observed, Like, Protocol):
    """One finished request."""
