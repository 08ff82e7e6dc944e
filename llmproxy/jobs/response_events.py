"""The events of a Response of the background, one row each: written while they come, read by whoever follows."""

from collections.abc import Sequence

from sqlalchemy import delete, insert, select
from sqlalchemy.ext.asyncio import AsyncConnection

from llmproxy.jobs.leases import RUNNING
from llmproxy.jobs.model import Claimed, Event, Step
from llmproxy.jobs.store import Store
from llmproxy.jobs.tables import events, items
from llmproxy.wire.framing import sse_event

#: the first events, there as soon as the Response is accepted: ``response.created`` and ``response.queued``
OPENING = 2

_TERMINAL = frozenset({b"response.completed", b"response.incomplete", b"response.failed"})


def is_terminal(frame: bytes) -> bool:
    """Whether a stored frame ends its stream."""
    return sse_event(frame) in _TERMINAL


async def put_events(connection: AsyncConnection, response_id: str, group: Sequence[Event]) -> None:
    """Adds events in the caller's transaction."""
    if group:
        rows = [{"response_id": response_id, "number": number, "frame": frame} for number, frame in group]
        await connection.execute(insert(events), rows)


async def add_events(store: Store, item: Claimed, group: Sequence[Event]) -> bool:
    """Adds events of the call that ``item`` is. False, and nothing is added, if the lease was lost."""

    async def work(connection: AsyncConnection) -> bool:
        if not await _is_held(connection, item):
            return False
        await put_events(connection, item.job.id, group)
        return True

    return await store.write(work, durable=False)


async def restart_events(store: Store, item: Claimed) -> bool:
    """Deletes what an earlier try has left of the events. False if the lease was lost."""

    async def work(connection: AsyncConnection) -> bool:
        if not await _is_held(connection, item):
            return False
        old = (events.c.response_id == item.job.id, events.c.number >= OPENING)
        await connection.execute(delete(events).where(*old))
        return True

    return await store.write(work, durable=False)


async def _is_held(connection: AsyncConnection, item: Claimed) -> bool:
    """The number of a claim is given once. Locked, so that it stays so until the transaction ends."""
    held = select(items.c.id).where(items.c.id == item.id, items.c.claims == item.claims, RUNNING).with_for_update()
    return (await connection.execute(held)).first() is not None


async def read_events(store: Store, response_id: str, after: int, limit: int) -> list[Event]:
    """The events with a number above ``after``, in order."""
    query = (
        select(events.c.number, events.c.frame)
        .where(events.c.response_id == response_id, events.c.number > after)
        .order_by(events.c.number)
        .limit(limit)
    )
    return [(row["number"], row["frame"]) for row in await store.rows(query)]


async def last_event(store: Store, response_id: str) -> Event | None:
    """The event with the highest number."""
    query = (
        select(events.c.number, events.c.frame)
        .where(events.c.response_id == response_id)
        .order_by(events.c.number.desc())
        .limit(1)
    )
    rows = await store.rows(query)
    return (rows[0]["number"], rows[0]["frame"]) if rows else None


async def was_restarted(store: Store, response_id: str) -> bool:
    """Whether its events may have begun anew, with numbers that were given before."""
    claims = select(items.c.claims).where(items.c.job_id == response_id, items.c.step == Step.CALL)
    return max(await store.scalars(claims), default=0) > 1
