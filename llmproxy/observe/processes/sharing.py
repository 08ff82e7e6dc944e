"""Shows the metrics of all the program's processes on this machine as one page, whichever of them is asked."""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, suppress
from pathlib import Path

from prometheus_client.exposition import generate_latest
from prometheus_client.metrics_core import Metric

from llmproxy.observe.metrics import Metrics
from llmproxy.observe.processes.folder import Folder
from llmproxy.observe.processes.merge import Keys, Reading, families
from llmproxy.observe.processes.own import Frozen, Own, frozen

logger = logging.getLogger(__name__)

#: between two times that a process writes what it counts
SECONDS = 1.0
#: seconds that the folder may take
LIMIT = 2.0

#: of ``llmproxy_observe_faults_total``
PART = "processes"


class _Page:
    """What the library's exposition asks of a registry."""

    def __init__(self, metrics: Iterable[Metric]) -> None:
        self._metrics = metrics

    def collect(self) -> Iterable[Metric]:
        return self._metrics


class Processes:
    """Writes this process's numbers into the folder, and reads those of the others when it is asked for all.

    No fault of the folder shows elsewhere than in the count of faults and in the log. While it cannot be read, the
    page has what was read of the others last.
    """

    def __init__(self, path: Path, metrics: Metrics, seconds: float = SECONDS) -> None:
        self._metrics = metrics
        self._seconds = seconds
        self._keys = Keys()
        self._folder = Folder(path, self._keys)
        self._own = Own()
        #: the only thread that touches the folder, and what it does now
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="metrics of processes")
        self._work: asyncio.Future[str] | None = None
        self._turn = asyncio.Lock()
        #: what is this process's own, and what is the same for all
        self._newest: tuple[Reading, Reading] = {}, {}
        self._task: asyncio.Task[None] | None = None
        self._failing = False

    async def open(self) -> None:
        await self._write()
        self._task = asyncio.create_task(self._run(), name="metrics of processes")

    async def close(self) -> None:
        """Writes what was counted to the end; gauges of this process are gone then. Safe to call twice."""
        if self._task is not None:
            self._task.cancel()
            with suppress(asyncio.CancelledError):
                await self._task
            self._task = None
            await self._write()
            await self._do(self._leave)
        self._thread.shutdown(wait=False)

    async def page(self) -> bytes:
        """What all processes count, in Prometheus's text format."""
        if not await self._do(self._exchange):
            self._newest = await asyncio.to_thread(self._own.entries, self._frozen())
        return await asyncio.to_thread(self._rendered)

    async def _run(self) -> None:
        while True:
            await asyncio.sleep(self._seconds)
            await self._write()

    async def _write(self) -> None:
        await self._metrics.refresh_local()
        await self._do(self._put)

    async def _do(self, work: Callable[[Frozen], str]) -> bool:
        """Has the thread do it with the numbers of now, after what it still does; False if it does not come to it.

        What fails is counted, and said once until it works.
        """
        fault, done = "", False
        try:
            async with asyncio.timeout(LIMIT), self._turn:
                if self._work is not None:
                    await asyncio.wait({self._work})
                # the numbers are taken here, so that older ones never replace newer ones in the files
                self._work = asyncio.get_running_loop().run_in_executor(self._thread, work, self._frozen())
                fault, done = await asyncio.shield(self._work), True
        except TimeoutError:
            fault = f"it takes longer than {LIMIT:g} s"
        except Exception as error:  # noqa: BLE001  whatever ails it, requests and what counts them go on
            fault = repr(error)
        if fault:
            self._metrics.observing_failed(PART)
            if not self._failing:
                logger.error("metrics of several processes in %s: %s; silent until it works", self._folder.path, fault)
        self._failing = bool(fault)
        return done

    def _frozen(self) -> Frozen:
        return frozen(self._metrics.catalogue.all())

    def _put(self, numbers: Frozen) -> str:
        self._newest = own, _ = self._own.entries(numbers)
        try:
            self._folder.write(own)
        except OSError as error:
            return str(error)
        return ""

    def _exchange(self, numbers: Frozen) -> str:
        # written before it is shown: whoever has this place after a kill must not begin with less
        fault = self._put(numbers)
        try:
            self._folder.read()
        except OSError as error:
            return fault or str(error)
        return fault or (f"not readable: {', '.join(self._folder.broken)}" if self._folder.broken else "")

    def _leave(self, _: Frozen) -> str:
        self._folder.leave()
        return ""

    def _rendered(self) -> bytes:
        readings = [*self._newest, self._folder.before, *self._folder.others.values()]
        return generate_latest(_Page(families(readings, self._keys)))


@asynccontextmanager
async def shown_together(path: Path | None, metrics: Metrics) -> AsyncIterator[None]:
    """While this is open ``metrics`` shows what all processes with the same folder count; None changes nothing.

    Open it before whatever counts, so that it closes after.
    """
    if path is None:
        yield
        return
    processes = Processes(path, metrics)
    await processes.open()
    metrics.show_by(processes.page)
    try:
        yield
    finally:
        await processes.close()
