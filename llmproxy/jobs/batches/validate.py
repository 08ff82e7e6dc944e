"""A batch's first step: its input file is checked as a whole, and only then its requests become calls."""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import aclosing

from sqlalchemy import func, select
from sqlalchemy.ext.asyncio import AsyncConnection

from llmproxy.jobs import lifecycle, transitions
from llmproxy.jobs.batches.batch_detail import Detail
from llmproxy.jobs.batches.input import numbered
from llmproxy.jobs.batches.input_validator import Checking, Entry
from llmproxy.jobs.batches.lines import read_line, unknown_model
from llmproxy.jobs.cancellation import CancelToken
from llmproxy.jobs.files.line_splitter import LONGEST
from llmproxy.jobs.job import Claimed, Failure, ItemResult, NewCall, Reschedule
from llmproxy.jobs.services import JobServices
from llmproxy.jobs.states import ItemStatus, JobStatus, Step
from llmproxy.jobs.store import Store
from llmproxy.jobs.tables import items
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
