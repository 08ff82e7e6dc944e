"""The steps of a batch that are no calls. The first checks its input file as a whole, and only then its requests become
calls; the last writes its results into files."""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack, aclosing

from sqlalchemy import delete, func, select
from sqlalchemy.ext.asyncio import AsyncConnection

from llmproxy.api.batch_input import Checking, Entry, numbered, read_line, unknown_model
from llmproxy.api.batch_model import Detail
from llmproxy.api.batch_output import Writing, line_of, undone_line
from llmproxy.api.file_model import File
from llmproxy.api.file_rows import put_row
from llmproxy.api.services import JobServices
from llmproxy.jobs import lifecycle, queries, transitions
from llmproxy.jobs.blobs import LONGEST
from llmproxy.jobs.handler import CancelToken
from llmproxy.jobs.model import Claimed, Failure, ItemResult, ItemStatus, Job, JobStatus, NewCall, Reschedule, Step
from llmproxy.jobs.store import Store
from llmproxy.jobs.tables import files, items
from llmproxy.proxy.listen import ClientDisconnected
from llmproxy.wire.errors import BadRequest, Unavailable

#: calls added in one transaction: some ten milliseconds in which nobody else writes
_CHUNK = 250

#: somebody else has the step, or the batch was ended: whatever is given back does not count
_LEFT = Reschedule(1.0, counts=False)


class Validate:
    """The handler. Done again after a crash, it goes on where it was: a batch that runs has been checked already, and
    the calls that are there are not added once more."""

    def __init__(self, services: JobServices) -> None:
        self._services = services
        # a line that was cut off is as long as LONGEST
        self._most_line_bytes = min(services.proxy.settings.max_body_bytes, LONGEST - 1)

    async def __call__(self, claimed: Claimed, cancel_token: CancelToken) -> ItemResult | Reschedule:
        detail = Detail.of(claimed.job)
        if claimed.job.status is JobStatus.PENDING:
            checked = await self._checked(claimed, detail, cancel_token)
            if cancel_token.disconnected:
                return _LEFT
            if errors := checked.errors():
                return ItemResult(ItemStatus.COMPLETED, also=self._refused(claimed, detail, errors))
            if await self._services.queue.begin(claimed, claimed.worker, checked.requests, checked.model) is None:
                return _LEFT
        return ItemResult(ItemStatus.COMPLETED) if await self._added(claimed, detail, cancel_token) else _LEFT

    async def _checked(self, claimed: Claimed, detail: Detail, cancel_token: CancelToken) -> Checking:
        checking = Checking(claimed.job.path, self._most_line_bytes)
        try:
            await self._read(checking, detail, cancel_token)
        except FileNotFoundError:
            message = f"Cannot find file {detail.input_file_id}, or this account has no access to it."
            checking.refuse(BadRequest(message, code="invalid_request", param="file_id"))
        else:
            if checking.model and not await self._services.proxy.upstreams.may_serve(checking.model):
                checking.refuse(unknown_model(checking.model), checking.model_line)
        return checking

    async def _read(self, checking: Checking, detail: Detail, cancel_token: CancelToken) -> None:
        if detail.blob is None:
            raise FileNotFoundError(detail.input_file_id)
        async with aclosing(numbered(self._services.blobs, detail.blob)) as pages:
            async for number, lines in pages:
                await asyncio.to_thread(checking.take, number, lines)
                if checking.over or cancel_token.disconnected:
                    return

    def _refused(
        self, claimed: Claimed, detail: Detail, errors: list[Entry]
    ) -> Callable[[AsyncConnection], Awaitable[None]]:
        async def refuse(connection: AsyncConnection) -> None:
            job = await transitions.lock(connection, claimed.job.id)
            if job is None or not job.status.open:
                return
            job = await transitions.set_job(connection, job, detail=detail.changed(errors=errors))
            failure = Failure(errors[0]["code"], errors[0]["message"])
            await lifecycle.fail(self._services.queue, connection, job.id, failure)

        return refuse

    async def _added(self, claimed: Claimed, detail: Detail, cancel_token: CancelToken) -> bool:
        """False if the lease was lost."""
        after = await _last_position(self._services.store, claimed.job.id)
        try:
            async with aclosing(numbered(self._services.blobs, detail.blob or "")) as pages:
                async for number, lines in pages:
                    calls = await asyncio.to_thread(_calls, claimed.job.path, number, lines, after)
                    for at in range(0, len(calls), _CHUNK):
                        chunk = calls[at : at + _CHUNK]
                        if cancel_token.disconnected or not await self._services.queue.add(
                            claimed, claimed.worker, chunk
                        ):
                            return False
        except FileNotFoundError as error:
            # nobody deletes it while the batch needs it: the store may find it again before the batch expires
            raise Unavailable(f"The input file {detail.input_file_id} of a batch cannot be found.") from error
        return True


def _calls(endpoint: str, number: int, lines: list[bytes], after: int) -> list[NewCall]:
    """Of good lines those behind the line ``after``. A call's position is the number of its line."""
    calls = []
    for at, line in enumerate(lines, number):
        if at > after and line.strip():
            request = read_line(line, endpoint, LONGEST)
            calls.append(NewCall(at, request.body, request.custom_id))
    return calls


async def _last_position(store: Store, job_id: str) -> int:
    """Of the calls that were added before: they were added in their order."""
    last = select(func.max(items.c.position)).where(items.c.job_id == job_id, items.c.step == Step.CALL)

    async def work(connection: AsyncConnection) -> int:
        return (await connection.execute(last)).scalar() or 0

    return await store.read(work)


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
