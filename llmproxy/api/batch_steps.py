"""The steps of a batch that are not calls. The first checks its input file as a whole, and only then its requests
become calls; the last writes its results into files."""

import asyncio
import logging
import pickle
from collections.abc import Iterator
from contextlib import AsyncExitStack, aclosing
from tempfile import SpooledTemporaryFile
from typing import IO

from sqlalchemy import func, select

from llmproxy.api.batch_input import InputCheck, numbered_lines, read_line, unknown_model
from llmproxy.api.batch_model import Detail
from llmproxy.api.batch_output import OutputFile, output_line, unfinished_line
from llmproxy.jobs import queries
from llmproxy.jobs.blobs import LONGEST, Blobs
from llmproxy.jobs.handler import CancelToken
from llmproxy.jobs.model import (
    Claimed,
    Failure,
    Finalization,
    ItemResult,
    ItemStatus,
    Job,
    JobStatus,
    NewCall,
    Refusal,
    Reschedule,
    Step,
)
from llmproxy.jobs.queue import Queue
from llmproxy.jobs.store import Store
from llmproxy.jobs.tables import items
from llmproxy.proxy.listen import ClientDisconnected
from llmproxy.upstream.upstreams import Upstreams
from llmproxy.wire.errors import BadRequest, Unavailable

log = logging.getLogger(__name__)

#: calls added in one transaction: some ten milliseconds in which nobody else writes
_CHUNK = 250
#: bytes of calls in memory between their check and the queue; more go into a file that is gone when the process is
_SPOOL_BYTES = 8 * 1024 * 1024

#: another worker has the step, or the batch was ended: this result does not count
_LEFT = Reschedule(1.0, counts=False)


class CallSpool:
    """Calls on their way from the check of all lines into the queue, so that each line is parsed once. Blocking.

    Raises ``Unavailable`` if ``file`` cannot hold them.
    """

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file

    def put(self, calls: list[NewCall]) -> None:
        try:
            pickle.dump([(call.position, call.body, call.label) for call in calls], self._file, pickle.HIGHEST_PROTOCOL)
        except OSError as error:
            raise Unavailable(f"There is no room for the lines of a batch ({error.strerror}).") from error

    def pages(self) -> Iterator[list[NewCall]]:
        """What was put in, in its order."""
        end = self._file.tell()
        self._file.seek(0)
        while self._file.tell() < end:
            yield [NewCall(*call) for call in pickle.load(self._file)]


class Validate:
    """The handler of the first step. After a crash it resumes: a batch that runs has been checked already, and the
    calls that are there are not added once more.

    A line takes at most ``most_line_bytes``. ``upstreams`` tell which models there are.
    """

    def __init__(self, queue: Queue, blobs: Blobs, upstreams: Upstreams, most_line_bytes: int) -> None:
        self._queue = queue
        self._blobs = blobs
        self._upstreams = upstreams
        # a line that was cut off is as long as LONGEST
        self._most_line_bytes = min(most_line_bytes, LONGEST - 1)

    async def __call__(self, claimed: Claimed, cancel_token: CancelToken) -> ItemResult | Reschedule:
        detail = Detail.of(claimed.job)
        if claimed.job.status is not JobStatus.PENDING:
            return await self._resumed(claimed, detail, cancel_token)
        with SpooledTemporaryFile(_SPOOL_BYTES) as file:
            spool = CallSpool(file)
            check = await self._checked(claimed, detail, spool, cancel_token)
            if cancel_token.disconnected:
                return _LEFT
            if errors := check.errors():
                failure = Failure(errors[0]["code"], errors[0]["message"])
                return ItemResult(ItemStatus.COMPLETED, move=Refusal(failure, {"errors": errors}))
            if await self._queue.begin(claimed, claimed.worker, check.requests, check.model) is None:
                return _LEFT
            pages = spool.pages()
            while (calls := await asyncio.to_thread(next, pages, None)) is not None:
                if not await self._add(claimed, calls, cancel_token):
                    return _LEFT
        return ItemResult(ItemStatus.COMPLETED)

    async def _checked(
        self, claimed: Claimed, detail: Detail, spool: CallSpool, cancel_token: CancelToken
    ) -> InputCheck:
        check = InputCheck(claimed.job.path, self._most_line_bytes)
        try:
            await self._read(check, detail, spool, cancel_token)
        except FileNotFoundError:
            message = f"Cannot find file {detail.input_file_id}, or this account has no access to it."
            check.refuse(BadRequest(message, code="invalid_request", param="file_id"))
        else:
            if check.model and not await self._upstreams.may_serve(check.model):
                check.refuse(unknown_model(check.model), check.model_line)
        return check

    async def _read(self, check: InputCheck, detail: Detail, spool: CallSpool, cancel_token: CancelToken) -> None:
        def take(number: int, lines: list[bytes]) -> None:
            calls = check.take(number, lines)
            # of a file with an error nothing becomes a call
            if calls and not check.refused:
                spool.put(calls)

        if detail.blob is None:
            raise FileNotFoundError(detail.input_file_id)
        async with aclosing(numbered_lines(self._blobs, detail.blob)) as pages:
            async for number, lines in pages:
                await asyncio.to_thread(take, number, lines)
                if check.over or cancel_token.disconnected:
                    return

    async def _resumed(self, claimed: Claimed, detail: Detail, cancel_token: CancelToken) -> ItemResult | Reschedule:
        """Adds the calls that a worker left out which died while it added them."""
        after = await _last_position(self._queue.store, claimed.job.id)
        try:
            async with aclosing(numbered_lines(self._blobs, detail.blob or "")) as pages:
                async for number, lines in pages:
                    calls = await asyncio.to_thread(_calls, claimed.job.path, number, lines, after)
                    if not await self._add(claimed, calls, cancel_token):
                        return _LEFT
        except FileNotFoundError as error:
            # nobody deletes it while the batch needs it: the store may find it again before the batch expires
            raise Unavailable(f"The input file {detail.input_file_id} of a batch cannot be found.") from error
        return ItemResult(ItemStatus.COMPLETED)

    async def _add(self, claimed: Claimed, calls: list[NewCall], cancel_token: CancelToken) -> bool:
        """False if the lease was lost."""
        for at in range(0, len(calls), _CHUNK):
            if cancel_token.disconnected:
                return False
            if not await self._queue.add(claimed, claimed.worker, calls[at : at + _CHUNK]):
                return False
        return True


def _calls(endpoint: str, number: int, lines: list[bytes], after: int) -> list[NewCall]:
    """Of lines that were checked before those behind the line ``after``."""
    checked = ((at, line) for at, line in enumerate(lines, number) if at > after and line.strip())
    return [read_line(line, endpoint, LONGEST).call(at) for at, line in checked]


async def _last_position(store: Store, job_id: str) -> int:
    """Of the calls that were added before: they were added in their order."""
    last = select(func.max(items.c.position)).where(items.c.job_id == job_id, items.c.step == Step.CALL)
    return (await store.scalars(last))[0] or 0


#: results in memory at a time: an answer may be large
_PAGE = 50
#: how long the files are kept if the batch does not say
_KEPT_SECONDS = 30 * 86_400

_UNFINISHED = {JobStatus.CANCELLED: ItemStatus.CANCELLED, JobStatus.EXPIRED: ItemStatus.EXPIRED}


class Finalize:
    """The handler of the last step. After a crash it writes the same files once more."""

    def __init__(self, queue: Queue, blobs: Blobs) -> None:
        self._queue = queue
        self._blobs = blobs

    async def __call__(self, claimed: Claimed, cancel_token: CancelToken) -> ItemResult | Reschedule:
        job = claimed.job
        try:
            async with AsyncExitStack() as stack:
                output = OutputFile(job.id, "output", self._blobs, stack)
                errors = OutputFile(job.id, "error", self._blobs, stack)
                written, last = await self._write_results(job, output, errors, cancel_token)
                if written < job.total:
                    await self._write_unread(job, last, errors, cancel_token)
        except ClientDisconnected:
            # half of a file must not take the place of a whole one
            return Reschedule(1.0, counts=False)
        now = self._queue.clock()
        expires_at = now + (Detail.of(job).output_seconds or _KEPT_SECONDS)
        both = (output, errors)
        move = Finalization(
            files=[file.row(job.scope, now, expires_at) for file in both if file.bytes],
            # the batch may have been tried again, and this time there is nothing to say
            removed=[file.id for file in both if not file.bytes],
            detail={"output_file_id": output.id_if_any, "error_file_id": errors.id_if_any},
        )
        return ItemResult(ItemStatus.COMPLETED, move=move)

    async def _write_results(
        self, job: Job, output: OutputFile, errors: OutputFile, cancel_token: CancelToken
    ) -> tuple[int, int]:
        """Returns how many calls there are, and the position of the last one."""
        written = last = 0
        while page := await queries.calls(self._queue.store, job.id, after=last, limit=_PAGE):
            if cancel_token.disconnected:
                raise ClientDisconnected
            good = [output_line(job.id, item) for item in page if item.status is ItemStatus.COMPLETED]
            bad = [output_line(job.id, item) for item in page if item.status is not ItemStatus.COMPLETED]
            await output.write(b"".join(good))
            await errors.write(b"".join(bad))
            written, last = written + len(page), page[-1].position
        return written, last

    async def _write_unread(self, job: Job, last: int, errors: OutputFile, cancel_token: CancelToken) -> None:
        """The requests behind the line ``last``: the batch was ended before they became calls."""
        blob, status = Detail.of(job).blob, _UNFINISHED[JobStatus(job.ending)]

        def unfinished(number: int, lines: list[bytes]) -> bytes:
            return b"".join(
                unfinished_line(job.id, at, read_line(line, job.path, LONGEST).custom_id, status)
                for at, line in enumerate(lines, number)
                if at > last and line.strip()
            )

        try:
            async with aclosing(numbered_lines(self._blobs, blob or "")) as pages:
                async for number, lines in pages:
                    if cancel_token.disconnected:
                        raise ClientDisconnected
                    await errors.write(await asyncio.to_thread(unfinished, number, lines))
        except FileNotFoundError:
            log.error("the input file of %s is gone: requests that were not read from it are in no file", job.id)
