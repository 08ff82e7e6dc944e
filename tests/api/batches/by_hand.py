"""A batch moved step by step in the test's own process, by a worker that the test plays itself."""

import io
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from llmproxy.api.batch_input import read_line
from llmproxy.api.batch_model import WINDOW_SECONDS, Detail
from llmproxy.api.batch_steps import Finalize, Validate
from llmproxy.api.file_model import new_id
from llmproxy.api.services import JobServices
from llmproxy.app.deadline import Deadline
from llmproxy.app.lifespan import open_services
from llmproxy.config.settings import Settings
from llmproxy.jobs import queries
from llmproxy.jobs.handler import CancelToken, Handler
from llmproxy.jobs.model import Claimed, ItemResult, ItemStatus, Job, JobKind, NewCall, NewJob, Step, TokenUsage
from llmproxy.observe.access_log import AccessLog, JsonFormatter
from llmproxy.observe.logs import AsyncLogWriter
from tests.api.batches.made import CHAT, Json, jsonl, read

LEASE = 60.0


class ByHand:
    """``jobs`` has no workers: whatever happens, this does."""

    def __init__(self, jobs: JobServices) -> None:
        self.jobs = jobs
        settings = jobs.proxy.settings
        self.validate = Validate(jobs.queue, jobs.blobs, jobs.proxy.upstreams, settings.max_body_bytes)
        self.finalize = Finalize(jobs.queue, jobs.blobs)
        self._handlers: dict[Step, Handler] = {Step.VALIDATE: self.validate, Step.FINALIZE: self.finalize}

    async def batch(self, *lines: Json | str, **more: Any) -> Job:
        """A batch that has just been accepted. ``more`` goes into its detail."""
        blob = new_id()
        async with self.jobs.blobs.create(blob) as sink:
            await sink.write(jsonl(*lines))
        detail = Detail(blob, blob, **more).members()
        expires_at = self.jobs.queue.clock() + WINDOW_SECONDS
        return await self.jobs.queue.submit(NewJob(JobKind.BATCH, CHAT, detail=detail, expires_at=expires_at), ())

    async def claim(self, worker: str, step: Step) -> Claimed:
        """The one item that waits; it must be a ``step``."""
        (claimed,) = await self.jobs.queue.claim(worker, 1, LEASE)
        assert claimed.step is step
        return claimed

    async def result(self, claimed: Claimed, cancel_token: CancelToken | None = None) -> ItemResult:
        """What the handler makes of the step; it does not count yet."""
        done = await self._handlers[claimed.step](claimed, cancel_token or CancelToken())
        assert isinstance(done, ItemResult)
        return done

    async def do(self, step: Step) -> None:
        """The whole step, as a worker does it."""
        claimed = await self.claim("worker", step)
        assert await self.jobs.queue.finish("worker", [(claimed, await self.result(claimed))])

    async def answer(self, number: int) -> None:
        """So many calls get an answer."""
        claimed = await self.jobs.queue.claim("worker", number, LEASE)
        assert [item.step for item in claimed] == [Step.CALL] * number
        good = ItemResult(ItemStatus.COMPLETED, 200, b'{"object":"chat.completion"}', tokens=TokenUsage(1, 2))
        assert len(await self.jobs.queue.finish("worker", [(item, good) for item in claimed])) == number

    async def begun(self, job: Job, *lines: Json) -> Claimed:
        """What a worker leaves behind that dies while it adds the calls: it was checked, and these are there."""
        claimed = await self.claim("dead", Step.VALIDATE)
        total = sum([len(page) async for page in self.jobs.blobs.lines(str(Detail.of(job).blob))])
        assert await self.jobs.queue.begin(claimed, "dead", total, "scripted")
        requests = [read_line(jsonl(line).strip(), CHAT, 10_000) for line in lines]
        calls = [NewCall(at, request.body, request.custom_id) for at, request in enumerate(requests, 1)]
        assert await self.jobs.queue.add(claimed, "dead", calls)
        return claimed

    async def now(self, job: Job) -> Job:
        found = await queries.job(self.jobs.store, job.id)
        assert found is not None
        return found

    async def labels(self, job: Job) -> list[str]:
        return [item.label for item in await queries.calls(self.jobs.store, job.id)]

    async def file(self, id: str | None) -> dict[str, Json]:
        """The lines of an output file."""
        return {} if id is None else read(b"".join([piece async for piece in self.jobs.blobs.read(id)]))


@asynccontextmanager
async def by_hand(folder: Path, database_url: str) -> AsyncIterator[ByHand]:
    """On an empty database, with a clock that can be set: ``jobs.queue.clock``. No model server is there."""
    settings = Settings(
        upstream=("http://127.0.0.1:9",),
        database_url=database_url,
        files_path=str(folder / "files"),
        task_queue_workers=0,
    )
    log = AccessLog(JsonFormatter(), AsyncLogWriter(io.StringIO(), lost=JsonFormatter().lost).write)
    async with open_services(settings, log, Deadline(settings.shutdown_seconds)) as state:
        assert state.jobs is not None
        yield ByHand(state.jobs)
