"""What becomes of files that expired, and of bytes that belong to nobody."""

import logging
from collections.abc import Callable
from contextlib import suppress

from llmproxy.jobs.blobs import Blobs
from llmproxy.jobs.files.store import expired, known, remove
from llmproxy.jobs.store import Store

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
        for name in set(chunk) - await known(store, chunk):
            # another process may sweep too
            with suppress(FileNotFoundError):
                if await blobs.written_at(name) < before:
                    await blobs.delete(name)
                    deleted += 1
    return deleted
