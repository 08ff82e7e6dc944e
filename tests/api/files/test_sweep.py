"""What expired goes, what belongs to nobody goes, and what somebody still needs stays."""

import os
import time
from pathlib import Path
from typing import Any, NoReturn

import pytest

from llmproxy.api import file_rows as rows
from llmproxy.api.file_model import FileQuery, new_id
from llmproxy.api.file_rows import sweep
from llmproxy.database.engine import Database
from llmproxy.jobs import lifecycle
from llmproxy.jobs.blob_stores import Folder
from llmproxy.jobs.model import File, ItemResult, ItemStatus, JobKind, NewCall, NewJob
from llmproxy.jobs.notifications import JobNotifications
from llmproxy.jobs.queue import Queue
from llmproxy.jobs.store import Store
from llmproxy.wire.errors import Unavailable

NOW = time.time()
LONG_AGO = NOW - 7_200


class Kept:
    """A store with its rows, and its clock."""

    def __init__(self, database: Database, folder: Path) -> None:
        self.store = Store(database)
        self.blobs = Folder(folder)
        self.queue = Queue(self.store, JobNotifications())
        self.folder = folder

    async def add(self, **members: Any) -> str:
        """A file that was uploaded two hours ago."""
        file = File(new_id(), "", "batch", "in.jsonl", 1, "ab", **{"created_at": LONG_AGO, **members})
        await self.left(file.id)
        await rows.put(self.store, file)
        return file.id

    async def left(self, id: str | None = None, written: float = LONG_AGO) -> str:
        """Bytes without a row."""
        id = id or new_id()
        async with self.blobs.create(id) as sink:
            await sink.write(b"x")
        os.utime(self.folder / id, (written, written))
        return id

    async def sweep(self) -> int:
        return await sweep(self.store, self.blobs, lambda: NOW)

    async def names(self) -> set[str]:
        return set(await self.blobs.names())

    async def listed(self) -> set[str]:
        page, _ = await rows.page(self.store, FileQuery(""), 0)
        return {file.id for file in page}


class Away(Store):
    """Nothing can be read, or written."""

    async def read(self, work: Any) -> NoReturn:
        raise Unavailable("away")

    async def write(self, work: Any, *, durable: bool = True) -> NoReturn:
        raise Unavailable("away")


@pytest.fixture
def kept(database: Database, tmp_path: Path) -> Kept:
    return Kept(database, tmp_path / "files")


async def test_what_has_expired_goes(kept: Kept) -> None:
    for _ in range(3):
        await kept.add(expires_at=NOW)
    stays = {await kept.add(expires_at=NOW + 1), await kept.add()}
    assert await kept.sweep() == 3
    assert await kept.names() == await kept.listed() == stays
    assert await kept.sweep() == 0


async def test_bytes_of_nobody_go_once_they_are_old(kept: Kept) -> None:
    await kept.left()
    fresh, owned = await kept.left(written=NOW), await kept.add()
    (kept.folder / ".file-a.0123456789abcdef.part").touch()
    os.utime(kept.folder / ".file-a.0123456789abcdef.part", (LONG_AGO, LONG_AGO))
    assert await kept.sweep() == 1
    assert {path.name for path in kept.folder.iterdir()} == {fresh, owned}


async def test_a_file_whose_bytes_are_gone_expires_like_any(kept: Kept) -> None:
    id = await kept.add(expires_at=NOW)
    (kept.folder / id).unlink()
    await kept.sweep()
    assert await kept.listed() == set()


async def test_what_was_stopped_in_between_is_found_the_next_time(kept: Kept) -> None:
    id = await kept.add(expires_at=NOW)
    await rows.remove(kept.store, rows.expired(NOW), 1)
    assert await kept.names() == {id}
    assert await kept.sweep() == 1
    assert await kept.names() == set()


async def test_nothing_goes_while_the_rows_cannot_be_read(kept: Kept, database: Database) -> None:
    id = await kept.left()

    kept.store = Away(database)
    with pytest.raises(Unavailable):
        await kept.sweep()
    assert await kept.names() == {id}


async def test_the_input_of_a_batch_stays_until_it_was_read(kept: Kept) -> None:
    id = await kept.add(expires_at=NOW)
    batch = NewJob(JobKind.BATCH, "/v1/chat/completions", detail={"input_file_id": id, "blob": id})
    await kept.queue.submit(batch, ())
    assert await kept.sweep() == 0
    assert await kept.listed() == set()
    [step] = await kept.queue.claim("worker", 10, 60)
    assert await kept.sweep() == 0
    assert await kept.names() == {id}
    await kept.queue.finish("worker", [(step, ItemResult(ItemStatus.COMPLETED))])
    assert await kept.sweep() == 1
    assert await kept.names() == set()


async def test_the_input_of_a_batch_that_was_ended_while_it_read_stays_for_its_last_step(kept: Kept) -> None:
    id = await kept.add(expires_at=NOW)
    batch = NewJob(JobKind.BATCH, "/v1/chat/completions", detail={"input_file_id": id, "blob": id})
    job = await kept.queue.submit(batch, ())
    [step] = await kept.queue.claim("worker", 10, 60)
    await kept.queue.begin(step, "worker", 5, "model")
    await lifecycle.cancel(kept.queue, job.id)
    assert await kept.sweep() == 0
    assert await kept.names() == {id}
    [last] = await kept.queue.claim("worker", 10, 60)
    await kept.queue.finish("worker", [(last, ItemResult(ItemStatus.COMPLETED))])
    assert await kept.sweep() == 1


async def test_other_jobs_hold_nothing(kept: Kept) -> None:
    id = await kept.add(expires_at=NOW)
    await kept.queue.submit(NewJob(JobKind.BATCH, "/v1/chat/completions", detail={"blob": None}), ())
    await kept.queue.submit(NewJob(JobKind.TASK, "/v1/chat/completions", detail={"blob": id}), [NewCall(0, b"{}")])
    assert await kept.sweep() == 1
