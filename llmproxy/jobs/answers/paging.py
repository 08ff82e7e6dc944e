"""A page of one caller's answers: which they are, in what order, and how many are shown at once."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from sqlalchemy import ColumnElement, Select, func, literal, select, tuple_

from llmproxy.jobs.answers.answer import AnswerKind, StoredAnswer
from llmproxy.jobs.answers.labels import line
from llmproxy.jobs.tables import stored

#: a page with more than this has one answer, or ends before: they are in memory all at once
_MOST_BYTES = 16 * 1024 * 1024


class StoredCursor(NamedTuple):
    """Where an answer stands in a list, and its bytes, roughly."""

    created_at: float
    id: str
    size: int


@dataclass(frozen=True, slots=True)
class StoredQuery:
    """Which answers. The page begins behind ``after``, (``created_at``, ``id``) of an answer that may be gone by now;
    they have all of ``labels``."""

    kind: AnswerKind
    scope: str
    after: tuple[float, str] | None = None
    limit: int = 20
    newest_first: bool = False
    model: str | None = None
    labels: Mapping[str, str] = field(default_factory=dict)

    def has(self, answer: StoredAnswer) -> bool:
        """Whether an answer that waits in memory is one of them."""
        if (answer.kind, answer.scope) != (self.kind, self.scope) or self.model not in (None, answer.model):
            return False
        if not all(line(name, value) in answer.metadata for name, value in self.labels.items()):
            return False
        if self.after is None:
            return True
        here = (answer.created_at, answer.id)
        return here < self.after if self.newest_first else here > self.after

    def query(self, current: ColumnElement[bool]) -> Select[Any]:
        """The cursors of those in the database, one more than the page has. ``current`` tells which still count."""
        here = tuple_(stored.c.created_at, stored.c.id)
        bytes_of = [func.coalesce(func.length(stored.c[name]), 0) for name in ("request", "input", "document")]
        query = select(stored.c.created_at, stored.c.id, sum(bytes_of, start=literal(0)))
        query = query.where(stored.c.kind == self.kind, stored.c.scope == self.scope, current)
        if self.model is not None:
            query = query.where(stored.c.model == self.model)
        for name, value in self.labels.items():
            # equality by bytes on every database, which LIKE is not
            query = query.where(func.replace(stored.c.metadata, line(name, value), "") != stored.c.metadata)
        if self.after is not None:
            at = tuple_(*map(literal, self.after))
            query = query.where(here < at if self.newest_first else here > at)
        order = (each.desc() if self.newest_first else each for each in (stored.c.created_at, stored.c.id))
        return query.order_by(*order).limit(self.limit + 1)

    def cut(self, places: Sequence[StoredCursor]) -> tuple[list[str], bool]:
        """The ids on the page, in order, and whether there are more."""
        ids: list[str] = []
        size = 0
        for place in sorted(places, reverse=self.newest_first)[: self.limit]:
            size += place.size
            if ids and size > _MOST_BYTES:
                break
            ids.append(place.id)
        return ids, len(ids) < len(places)
