"""Leases, as conditions and statements on a connection whose transaction the queue holds.

A lease is the worker's name and the number of the claim on the item's row. Whoever changes several items locks them in
the order of their ids, or passes over those that are locked: so nobody waits crosswise.
"""

from typing import Any

from sqlalchemy import CTE, BindParameter, Column, ColumnElement, Double, bindparam, literal_column, or_, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from llmproxy.jobs.clock import LONGEST_SECONDS
from llmproxy.jobs.job import Claimed
from llmproxy.jobs.states import ItemStatus
from llmproxy.jobs.tables import items

#: in the statement's text: the partial indexes are only used where their condition is seen before values are
WAITING = items.c.status == literal_column(f"'{ItemStatus.WAITING}'")
RUNNING = items.c.status == literal_column(f"'{ItemStatus.RUNNING}'")

#: when an item is due that waits for nothing, by whatever clock
AT_ONCE = 0.0

#: a lease that is given up
FREE: dict[str, Any] = {"status": ItemStatus.WAITING, "worker": None, "leased_until": None}


def is_due(now: BindParameter[float]) -> ColumnElement[bool]:
    """Whether an item waits for nothing any more."""
    return or_(items.c.due_at <= now, _is_foreign(items.c.due_at, now))


def is_over(now: BindParameter[float]) -> ColumnElement[bool]:
    """Whether the time of a lease is up."""
    return or_(items.c.leased_until < now, _is_foreign(items.c.leased_until, now))


def _is_foreign(moment: Column[float], now: BindParameter[float]) -> ColumnElement[bool]:
    """Whether a moment is not of the clock of waits and leases as it is now."""
    return moment > now + literal_column(str(LONGEST_SECONDS), Double)


def in_turn(*which: ColumnElement[bool]) -> ColumnElement[bool]:
    """The items of which ``which`` is true, locked one after the other in the order of their ids."""
    # sorted by a term: to have the ids themselves in their order SQLite would read the whole table, and no index
    turn = items.c.id + literal_column("0")
    chosen = select(items.c.id).where(*which).order_by(turn).with_for_update().cte("chosen")
    return items.c.id.in_(select(chosen.c.id))


def _unlocked(*which: ColumnElement[bool]) -> CTE:
    return select(items.c.id).where(*which).with_for_update(skip_locked=True).cte("chosen")


_OF_WORKER = (RUNNING, items.c.worker == bindparam("by"))
_ONE = (*_OF_WORKER, items.c.id == bindparam("item"), items.c.claims == bindparam("number"))

_LAPSED = _unlocked(RUNNING, is_over(bindparam("now", type_=Double)))
_LAPSE = update(items).where(items.c.id.in_(select(_LAPSED.c.id))).values(**FREE)
_RENEW = (
    update(items)
    .where(in_turn(*_OF_WORKER))
    .values(leased_until=bindparam("until"))
    .returning(items.c.id, items.c.claims)
)
# counted by what it returns: SQLite's driver counts no statement that begins with WITH
_RELEASE = update(items).where(in_turn(*_OF_WORKER)).values(**FREE).returning(items.c.id)
_GIVE_BACK = update(items).where(*_ONE).values(**FREE)
_PUT_OFF = _GIVE_BACK.values(due_at=bindparam("due"), attempts=items.c.attempts + bindparam("counted"))
_HOLDS = select(items.c.id).where(*_ONE)
_HOLDERS = select(items.c.worker).where(RUNNING).distinct()


async def lapse(connection: AsyncConnection, now: float) -> None:
    """Gives back the leases that ran out before ``now``."""
    await connection.execute(_LAPSE, {"now": now})


async def renew(connection: AsyncConnection, worker: str, until: float) -> dict[int, int]:
    """Puts off the end of a worker's leases. Returns them: item -> number of the claim."""
    renewed = await connection.execute(_RENEW, {"by": worker, "until": until})
    return {row.id: row.claims for row in renewed}


async def release(connection: AsyncConnection, worker: str) -> int:
    """Gives back every lease of a worker. Returns how many there were."""
    return len((await connection.execute(_RELEASE, {"by": worker})).all())


async def give_back(connection: AsyncConnection, worker: str, item_id: int, claims: int) -> None:
    """Gives back one lease."""
    await connection.execute(_GIVE_BACK, {"by": worker, "item": item_id, "number": claims})


async def reschedule(connection: AsyncConnection, worker: str, claimed: Claimed, due: float, counted: int) -> None:
    """Gives back one lease, and nobody claims the item before ``due``; ``counted`` attempts are added."""
    await connection.execute(_PUT_OFF, {**_lease(worker, claimed), "due": due, "counted": counted})


async def holds(connection: AsyncConnection, worker: str, claimed: Claimed) -> bool:
    """Whether a lease is still held."""
    return (await connection.execute(_HOLDS, _lease(worker, claimed))).first() is not None


async def holders(connection: AsyncConnection) -> set[str]:
    """The workers that hold leases."""
    return set((await connection.execute(_HOLDERS)).scalars().all())


def _lease(worker: str, claimed: Claimed) -> dict[str, Any]:
    return {"by": worker, "item": claimed.id, "number": claimed.claims}
