"""A batch's last step: its results become files."""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack, aclosing

from sqlalchemy import delete
from sqlalchemy.ext.asyncio import AsyncConnection

from llmproxy.jobs import queries, transitions
from llmproxy.jobs.batches.batch_detail import Detail
from llmproxy.jobs.batches.input import numbered
from llmproxy.jobs.batches.lines import read_line
from llmproxy.jobs.batches.output import line_of, undone_line
from llmproxy.jobs.batches.output_writer import Writing
from llmproxy.jobs.cancellation import CancelToken
from llmproxy.jobs.files.document import File
from llmproxy.jobs.files.line_splitter import LONGEST
from llmproxy.jobs.files.store import put_row
from llmproxy.jobs.job import Claimed, ItemResult, Job, Reschedule
from llmproxy.jobs.services import JobServices
from llmproxy.jobs.states import ItemStatus, JobStatus
from llmproxy.jobs.tables import files
from llmproxy.proxy.listen import ClientDisconnected

log = logging.getLogger(__name__)

#: results in memory at a time: an answer may be large
_PAGE = 50
#: how long the files are kept where the batch does not say
_KEPT_SECONDS = 30 * 86_400
_PURPOSE = "batch_output"

_UNDONE = {JobStatus.CANCELLED: ItemStatus.CANCELLED, JobStatus.EXPIRED: ItemStatus.EXPIRED}


class Finalize:
    """The handler. Done again after a crash, it writes the same files once more."""

    def __init__(self, services: JobServices) -> None:
        self._services = services

    async def __call__(self, claimed: Claimed, cancel_token: CancelToken) -> ItemResult | Reschedule:
        job = claimed.job
        try:
            async with AsyncExitStack() as stack:
                output = Writing(job.id, "output", self._services.blobs, stack)
                errors = Writing(job.id, "error", self._services.blobs, stack)
                written, last = await self._write_results(job, output, errors, cancel_token)
                if written < job.total:
                    await self._write_unread(job, last, errors, cancel_token)
        except ClientDisconnected:
            # half of a file must not take the place of a whole one
            return Reschedule(1.0, counts=False)
        return ItemResult(ItemStatus.COMPLETED, also=self._closed(job, output, errors))

    async def _write_results(
        self, job: Job, output: Writing, errors: Writing, cancel_token: CancelToken
    ) -> tuple[int, int]:
        """Returns how many calls there are, and the position of the last one."""
        written = last = 0
        while page := await queries.calls(self._services.store, job.id, after=last, limit=_PAGE):
            if cancel_token.disconnected:
                raise ClientDisconnected
            good = [line_of(job.id, item) for item in page if item.status is ItemStatus.COMPLETED]
            bad = [line_of(job.id, item) for item in page if item.status is not ItemStatus.COMPLETED]
            await output.write(b"".join(good))
            await errors.write(b"".join(bad))
            written, last = written + len(page), page[-1].position
        return written, last

    async def _write_unread(self, job: Job, last: int, errors: Writing, cancel_token: CancelToken) -> None:
        """The requests behind the line ``last``: the batch was ended before they became calls."""
        blob, status = Detail.of(job).blob, _UNDONE[JobStatus(job.ending)]

        def undone(number: int, lines: list[bytes]) -> bytes:
            return b"".join(
                undone_line(job.id, at, read_line(line, job.path, LONGEST).custom_id, status)
                for at, line in enumerate(lines, number)
                if at > last and line.strip()
            )

        try:
            async with aclosing(numbered(self._services.blobs, blob or "")) as pages:
                async for number, lines in pages:
                    if cancel_token.disconnected:
                        raise ClientDisconnected
                    await errors.write(await asyncio.to_thread(undone, number, lines))
        except FileNotFoundError:
            log.error("the input file of %s is gone: requests that were not read from it are in no file", job.id)

    def _closed(self, job: Job, output: Writing, errors: Writing) -> Callable[[AsyncConnection], Awaitable[None]]:
        async def close(connection: AsyncConnection) -> None:
            now = self._services.queue.clock()
            locked = await transitions.lock(connection, job.id)
            if locked is None or locked.status not in (JobStatus.FINALIZING, JobStatus.CANCELLING):
                return
            kept = Detail.of(locked).output_seconds or _KEPT_SECONDS
            for file in (output, errors):
                if file.bytes:
                    await put_row(connection, _row(file, job.scope, now, now + kept))
                else:
                    # the batch was tried again, and this time there is nothing to say
                    await connection.execute(delete(files).where(files.c.id == file.id))
            detail = Detail.of(locked).changed(output_file_id=output.known_as, error_file_id=errors.known_as)
            locked = await transitions.set_job(connection, locked, detail=detail)
            await transitions.close(connection, locked, JobStatus(locked.ending), now)

        return close


def _row(file: Writing, scope: str, now: float, expires_at: float) -> File:
    return File(file.id, scope, _PURPOSE, file.filename, file.bytes, file.sha256, now, expires_at)
