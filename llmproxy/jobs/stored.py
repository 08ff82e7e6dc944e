"""Answers that can be asked for again by their ids: in memory while they wait to be written, in the database from then
on."""

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from operator import attrgetter
from typing import Any, NamedTuple

from sqlalchemy import ColumnElement, Select, delete, func, insert, literal, or_, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from llmproxy.database.breaker import CircuitBreaker, ignore
from llmproxy.database.paging import Keyset
from llmproxy.database.write_behind import Loss, WriteBehind, WriteLimits
from llmproxy.jobs.store import Store
from llmproxy.jobs.stored_model import AnswerKind, StoredAnswer, label_json
from llmproxy.jobs.tables import events, jobs, stored
from llmproxy.runtime.background import Backoff
from llmproxy.wire.errors import BadRequest

log = logging.getLogger(__name__)

#: a page with more than this has one answer, or ends before: they are in memory all at once
_MOST_BYTES = 16 * 1024 * 1024


_NEWEST = Keyset(stored.c.created_at, stored.c.id)
_OLDEST = Keyset(stored.c.created_at, stored.c.id, ascending=True)


class StoredCursor(NamedTuple):
    """The position of an answer in a list, and its bytes, roughly."""

    created_at: float
    id: str
    size: int


@dataclass(frozen=True, slots=True)
class StoredQuery:
    """Which answers: they have all of ``labels``. The page begins behind ``after``, (``created_at``, ``id``) of an
    answer that may be gone by now."""

    kind: AnswerKind
    scope: str
    after: tuple[float, str] | None = None
    limit: int = 20
    newest_first: bool = False
    model: str | None = None
    labels: Mapping[str, str] = field(default_factory=dict)

    def matches(self, answer: StoredAnswer) -> bool:
        """Whether an answer that waits in memory is one of these."""
        if (answer.kind, answer.scope) != (self.kind, self.scope) or self.model not in (None, answer.model):
            return False
        if not all(label_json(name, value) in answer.metadata for name, value in self.labels.items()):
            return False
        if self.after is None:
            return True
        here = (answer.created_at, answer.id)
        return here < self.after if self.newest_first else here > self.after

    def query(self, current: ColumnElement[bool]) -> Select[Any]:
        """The cursors of those in the database, one more than the page has. ``current`` tells which still count."""
        bytes_of = [func.coalesce(func.length(stored.c[name]), 0) for name in ("request", "input", "document")]
        query = select(stored.c.created_at, stored.c.id, sum(bytes_of, start=literal(0)))
        query = query.where(stored.c.kind == self.kind, stored.c.scope == self.scope, current)
        if self.model is not None:
            query = query.where(stored.c.model == self.model)
        for name, value in self.labels.items():
            # equality by bytes on every database, which LIKE is not
            query = query.where(func.replace(stored.c.metadata, label_json(name, value), "") != stored.c.metadata)
        return (_NEWEST if self.newest_first else _OLDEST).page(query, self.limit, self.after)

    def cut(self, cursors: Sequence[StoredCursor]) -> tuple[list[str], bool]:
        """The ids on the page, in order, and whether there are more."""
        ids: list[str] = []
        size = 0
        for cursor in sorted(cursors, reverse=self.newest_first)[: self.limit]:
            size += cursor.size
            if ids and size > _MOST_BYTES:
                break
            ids.append(cursor.id)
        return ids, len(ids) < len(cursors)


#: answers in one conversation
LONGEST_CHAIN = 1000
#: rows deleted in one transaction
_CHUNK = 500


#: what may wait, and what one transaction takes. It lingers for a short time: other processes see answers only then
WRITES = WriteLimits(group_items=256, linger=0.05)
_BACKOFF = Backoff(first=0.5, longest=30.0)


class StoredAnswers:
    """``lost`` is called for each answer that could not be stored: for want of room to wait, because no row can hold
    it, or because it still waited at the end. ``clock`` gives Unix seconds.

    Methods that read, change or delete raise ``Unavailable`` if the database cannot be used.
    """

    def __init__(
        self,
        store: Store,
        lost: Callable[[], None],
        clock: Callable[[], float] = time.time,
        limits: WriteLimits = WRITES,
    ) -> None:
        self._store = store
        fails, works = "answers wait to be stored: %(error)s", "answers are stored again"
        self._waiting: WriteBehind[StoredAnswer] = WriteBehind(
            "stored answers",
            self._write,
            CircuitBreaker("answers", ignore, fails=fails, works=works, backoff=_BACKOFF),
            limits,
            key=attrgetter("id"),
            size=attrgetter("size"),
            lost=self._count_lost,
        )
        #: an answer that was to be kept is not there as a whole
        self.lose = lost
        self._clock = clock

    def open(self) -> None:
        """Starts to write. Answers may be stored before."""
        self._waiting.open()

    async def close(self, seconds: float) -> None:
        """Writes what waits, for so long at most."""
        await self._waiting.close(seconds)

    def keep(self, answer: StoredAnswer) -> None:
        """Stores an answer: it is found from now on, and written soon."""
        self._waiting.put(answer)

    async def find(self, id: str, kind: AnswerKind, scope: str) -> StoredAnswer | None:
        """The answer, None if there is none of this kind in this scope."""
        waiting = self._waiting.find(id)
        if waiting is not None:
            return waiting if (waiting.kind, waiting.scope) == (kind, scope) else None
        query = self._visible(kind, scope).where(stored.c.id == id)
        rows = await self._store.rows(query)
        found = StoredAnswer.read(rows[0]) if rows else None
        # of the background, but nothing came of it and its job is gone
        return None if found is not None and found.document is None and found.job is None else found

    async def chain(self, id: str, kind: AnswerKind, scope: str) -> tuple[list[StoredAnswer], str]:
        """The answer and those before it, newest first, and the id of the first that is not there, "" for none.

        Raises ``BadRequest`` for more than ``LONGEST_CHAIN``.
        """
        chain: list[StoredAnswer] = []
        while id:
            if len(chain) >= LONGEST_CHAIN:
                raise BadRequest(
                    f"This conversation has more than {LONGEST_CHAIN} responses.", param="previous_response_id"
                )
            # a newer one may be in the database already while an older one still waits
            waiting = self._waiting.find(id)
            if waiting is not None and (waiting.kind, waiting.scope) == (kind, scope):
                found = [waiting]
            else:
                found = await self._chain_rows(id, kind, scope)
            if not found:
                return chain, id
            chain += found
            id = found[-1].previous_id
        return chain, ""

    async def _chain_rows(self, id: str, kind: AnswerKind, scope: str) -> list[StoredAnswer]:
        # what has expired ends the chain here: left out of its middle it would change what was said
        visible = (stored.c.kind == kind, stored.c.scope == scope, self._current())
        first = select(stored.c.id, stored.c.previous_id, literal(0).label("depth")).where(stored.c.id == id, *visible)
        links = first.cte("links", recursive=True)
        before = select(stored.c.id, stored.c.previous_id, links.c.depth + 1).where(
            stored.c.id == links.c.previous_id, *visible, links.c.depth < LONGEST_CHAIN
        )
        links = links.union_all(before)
        query = self._visible(kind, scope).join(links, links.c.id == stored.c.id).order_by(links.c.depth)
        return [StoredAnswer.read(row) for row in await self._store.rows(query)]

    async def page(self, which: StoredQuery) -> tuple[list[StoredAnswer], bool]:
        """The answers, in order, and whether there are more."""
        # before the database is asked: what is written meanwhile is found twice, and not missed
        waiting = {answer.id: answer for answer in self._waiting if which.matches(answer)}
        query = which.query(self._current())

        async def work(connection: AsyncConnection) -> tuple[list[StoredAnswer], bool]:
            cursors = [StoredCursor(*row) for row in (await connection.execute(query)).all()]
            cursors = [cursor for cursor in cursors if cursor.id not in waiting]
            cursors += [StoredCursor(answer.created_at, answer.id, answer.size) for answer in waiting.values()]
            ids, more = which.cut(cursors)
            chosen = self._visible(which.kind, which.scope).where(stored.c.id.in_(set(ids) - waiting.keys()))
            rows = (await connection.execute(chosen)).mappings().all()
            found = waiting | {answer.id: answer for answer in map(StoredAnswer.read, rows)}
            return [found[id] for id in ids if id in found], more

        return await self._store.read(work)

    def _count_lost(self, count: int, why: Loss) -> None:
        if why is Loss.UNWRITTEN:
            log.warning("%d answers could not be stored before the end", count)
        for _ in range(count):
            self.lose()

    async def _write(self, group: Sequence[StoredAnswer]) -> None:
        async def work(connection: AsyncConnection) -> None:
            # a commit may have counted although its word did not come through: written again, it is the same
            await connection.execute(delete(stored).where(stored.c.id.in_([answer.id for answer in group])))
            await connection.execute(insert(stored), [answer.row() for answer in group])

        await self._store.write(work, durable=False)

    def _visible(self, kind: AnswerKind, scope: str) -> Select[Any]:
        return (
            select(stored, jobs.c.status.label("job"))
            .select_from(stored)
            .outerjoin(jobs, jobs.c.id == stored.c.id)
            .where(stored.c.kind == kind, stored.c.scope == scope, self._current())
        )

    def _current(self) -> ColumnElement[bool]:
        return or_(stored.c.expires_at.is_(None), stored.c.expires_at > self._clock())

    async def relabel(self, id: str, metadata: str) -> None:
        """Gives an answer other labels, in the form of ``labels.written``."""
        async with self._waiting.paused():
            waiting = self._waiting.find(id)
            if waiting is not None and self._waiting.replace(replace(waiting, metadata=metadata)):
                return
        change = update(stored).where(stored.c.id == id).values(metadata=metadata)

        async def work(connection: AsyncConnection) -> None:
            await connection.execute(change)

        await self._store.write(work)

    async def delete(self, id: str) -> None:
        """Deletes an answer and its events."""
        async with self._waiting.paused():
            self._waiting.discard(id)

        async def work(connection: AsyncConnection) -> None:
            await connection.execute(delete(events).where(events.c.response_id == id))
            await connection.execute(delete(stored).where(stored.c.id == id))

        await self._store.write(work)

    async def delete_old(self, before: float) -> None:
        """Deletes the answers from before that time, and those whose own time is up; what is under way stays."""
        for old in (stored.c.created_at < before, stored.c.expires_at < self._clock()):
            while await self._delete_some(old) == _CHUNK:
                pass

    async def _delete_some(self, which: ColumnElement[bool]) -> int:
        under_way = select(jobs.c.id).where(jobs.c.id == stored.c.id, jobs.c.finished_at.is_(None)).exists()
        chosen = select(stored.c.id).where(which, ~under_way).limit(_CHUNK)

        async def work(connection: AsyncConnection) -> int:
            ids = (await connection.execute(chosen)).scalars().all()
            await connection.execute(delete(events).where(events.c.response_id.in_(ids)))
            await connection.execute(delete(stored).where(stored.c.id.in_(ids)))
            return len(ids)

        return await self._store.write(work)


async def put_answer(connection: AsyncConnection, answer: StoredAnswer) -> None:
    """Adds an answer in the caller's transaction."""
    await connection.execute(insert(stored).values(**answer.row()))


async def complete_answer(connection: AsyncConnection, id: str, document: bytes, expires_at: float | None) -> None:
    """Gives an answer made in the background its document, in the caller's transaction."""
    finished = update(stored).where(stored.c.id == id).values(document=document, expires_at=expires_at)
    await connection.execute(finished)
