"""The rows of files. What has expired is not there any more, whether or not it was swept."""

import json
import logging
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import asdict
from typing import Any

from sqlalchemy import ColumnElement, and_, delete, insert, literal_column, or_, select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncConnection

from llmproxy.api.file_model import FileQuery
from llmproxy.database.paging import Keyset, cut
from llmproxy.jobs.blobs import Blobs
from llmproxy.jobs.model import STEP_PRIORITIES, File, ItemStatus, Step
from llmproxy.jobs.store import Store
from llmproxy.jobs.tables import files, items, jobs

# the statuses stand in the statements' text, where the partial indexes need them; the priority picks the few steps
# out of the many calls that wait
_WAITING = (
    items.c.status == literal_column(f"'{ItemStatus.WAITING}'"),
    items.c.priority == STEP_PRIORITIES[Step.VALIDATE],
)
_RUNNING = (items.c.status == literal_column(f"'{ItemStatus.RUNNING}'"),)

_NEWEST = Keyset(files.c.created_at, files.c.id)
_OLDEST = Keyset(files.c.created_at, files.c.id, ascending=True)

#: of a batch's steps those that read its input file
_READING = (Step.VALIDATE, Step.FINALIZE)


async def put(store: Store, file: File) -> File:
    """Adds a file. The same idempotency key gives the first one: a row with another id was there before."""
    same = and_(files.c.scope == file.scope, files.c.idempotency_key == file.idempotency_key)

    async def work(connection: AsyncConnection) -> File:
        if file.idempotency_key is not None:
            await connection.execute(delete(files).where(same, expired(file.created_at)))
        try:
            async with connection.begin_nested():
                await connection.execute(insert(files).values(**asdict(file)))
        except IntegrityError:
            return File(**(await connection.execute(select(files).where(same))).mappings().one())
        return file

    return await store.write(work)


async def get(store: Store, id: str, scope: str, now: float) -> File | None:
    query = select(files).where(files.c.id == id, files.c.scope == scope, _current(now))
    rows = await store.rows(query)
    return File(**rows[0]) if rows else None


async def page(store: Store, query: FileQuery, now: float) -> tuple[list[File], bool]:
    """The files, and whether there are more. The list ends with an ``after`` that does not exist."""
    statement = select(files).where(files.c.scope == query.scope, _current(now))
    if query.purpose is not None:
        statement = statement.where(files.c.purpose == query.purpose)
    after = None
    if query.after is not None:
        created = select(files.c.created_at).where(files.c.id == query.after, files.c.scope == query.scope)
        after = (created.scalar_subquery(), query.after)
    order = _NEWEST if query.newest_first else _OLDEST
    rows, last = cut(await store.rows(order.page(statement, query.limit, after)), query.limit)
    return [File(**row) for row in rows], last is not None


async def remove(store: Store, chosen: ColumnElement[bool], limit: int) -> tuple[list[str], set[str]]:
    """Deletes rows. Returns their ids, and those of them whose bytes somebody still needs."""
    some = select(files.c.id).where(chosen).limit(limit)

    async def work(connection: AsyncConnection) -> tuple[list[str], set[str]]:
        ids = list((await connection.execute(some)).scalars())
        if not ids:
            return [], set()
        await connection.execute(delete(files).where(files.c.id.in_(ids)))
        return ids, await _still_needed(connection)

    return await store.write(work)


async def in_use(store: Store, ids: Sequence[str]) -> set[str]:
    """Those of the names whose bytes somebody may ask for: they have a row, or something still needs them."""
    query: Any = select(files.c.id).where(files.c.id.in_(ids))

    async def work(connection: AsyncConnection) -> set[str]:
        return {*(await connection.execute(query)).scalars(), *await _still_needed(connection)}

    return await store.read(work)


def of_caller(id: str, scope: str, now: float) -> ColumnElement[bool]:
    """One file, for ``remove``."""
    return and_(files.c.id == id, files.c.scope == scope, _current(now))


def expired(now: float) -> ColumnElement[bool]:
    """Files whose time is up, for ``remove``."""
    return files.c.expires_at <= now


def _current(now: float) -> ColumnElement[bool]:
    return or_(files.c.expires_at.is_(None), files.c.expires_at > now)


async def _still_needed(connection: AsyncConnection) -> set[str]:
    """Names of the blobs that are needed although their files may be deleted: of batches whose input was not read to
    its end yet. Callers delete the file as soon as its batch was accepted.

    A batch that was ended before that reads the rest of it in its last step: those requests are listed as not done.
    """
    names: set[str] = set()
    for status in (_WAITING, _RUNNING):
        reading = select(jobs.c.detail).join(items, items.c.job_id == jobs.c.id)
        reading = reading.where(*status, items.c.step.in_(_READING))
        for detail in (await connection.execute(reading)).scalars():
            name = json.loads(detail).get("blob")
            if name is not None:
                names.add(name)
    return names


log = logging.getLogger(__name__)

#: rows looked at in one transaction
_CHUNK = 500
#: seconds after which bytes without a row are nobody's: a file's row is written right after its bytes
_ORPHAN_SECONDS = 3_600.0


async def sweep(store: Store, blobs: Blobs, clock: Callable[[], float]) -> int:
    """Deletes expired files, and bytes that were left behind. Returns how many blobs that were.

    Rows go first: what is stopped in between leaves bytes without a row, which are found the next time. ``clock``
    gives Unix seconds. Raises ``Unavailable``.
    """
    now = clock()
    deleted = await _expired(store, blobs, now) + await _orphans(store, blobs, now - _ORPHAN_SECONDS)
    await blobs.tidy(now - _ORPHAN_SECONDS)
    if deleted:
        log.info("%d files were deleted that had expired or belonged to nobody", deleted)
    return deleted


async def _expired(store: Store, blobs: Blobs, now: float) -> int:
    deleted = 0
    while True:
        ids, needed = await remove(store, expired(now), _CHUNK)
        for id in ids:
            if id not in needed:
                await blobs.delete(id)
                deleted += 1
        if len(ids) < _CHUNK:
            return deleted


async def _orphans(store: Store, blobs: Blobs, before: float) -> int:
    deleted = 0
    names = await blobs.names()
    for at in range(0, len(names), _CHUNK):
        chunk = names[at : at + _CHUNK]
        for name in set(chunk) - await in_use(store, chunk):
            # another process may sweep too
            with suppress(FileNotFoundError):
                if await blobs.written_at(name) < before:
                    await blobs.delete(name)
                    deleted += 1
    return deleted
