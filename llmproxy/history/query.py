"""Which exchanges somebody asks for. Pure."""

from dataclasses import dataclass
from typing import Any, NamedTuple

from llmproxy.history.cursor import cursor, values


class HistoryCursor(NamedTuple):
    """Where a page ended: the next one holds what is older. ``id`` tells apart what began at the same time."""

    created_at: float
    id: int

    def text(self) -> str:
        return cursor(self)

    @classmethod
    def read(cls, text: str) -> "HistoryCursor":
        """Raises ``BadRequest``."""
        found: Any = values(text, (float, int))
        return cls(*found)


@dataclass(frozen=True, slots=True)
class HistoryQuery:
    """Filters, all of which must apply; None is no filter. Times are Unix seconds, of when the exchanges began.

    ``text`` are phrases that must all be in the prompt or the answer; with them the newest to end is first, without
    them the newest to begin.
    """

    limit: int
    user: str | None = None
    session: str | None = None
    model: str | None = None
    endpoint: str | None = None
    cache: str | None = None
    status: int | None = None
    #: from this moment on
    since: float | None = None
    #: before this moment
    until: float | None = None
    text: tuple[tuple[str, ...], ...] = ()
    after: HistoryCursor | None = None


@dataclass(frozen=True, slots=True)
class Page:
    """Exchanges, newest first, JSON-ready; and where the next page begins, None after the last one.

    A page may hold fewer than were asked for, or none, although there are more: so much had to be looked through.
    """

    rows: list[dict[str, Any]]
    next: HistoryCursor | None
