"""The job workers of a database as a program of their own. It listens for Prometheus only, if a port is set."""

import asyncio
import logging
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, nullcontext
from functools import partial

import uvicorn
import uvloop
from starlette.applications import Starlette
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from llmproxy.app import health
from llmproxy.app.banner import announce, introduce, place_of_data
from llmproxy.app.deadline import Deadline, end_process_after
from llmproxy.app.lifespan import CannotStart, open_services
from llmproxy.app.server import bind, stop_signals
from llmproxy.app.state import AppState
from llmproxy.app.terminal import question_for
from llmproxy.config.settings import Settings
from llmproxy.observe.logs import configure, form_for

logger = logging.getLogger(__name__)


def run(settings: Settings) -> None:
    """Works until SIGINT or SIGTERM, then gives back what it has begun. Raises ``CannotStart``."""
    if not settings.jobs:
        raise CannotStart("jobs are switched off: LLMPROXY_JOBS=true switches them on")
    if not settings.task_queue_workers:
        raise CannotStart("TASK_QUEUE_WORKERS is 0 here: say how many with llmproxy worker --workers N")
    uvloop.run(_work(settings))


async def _work(settings: Settings) -> None:
    log = configure(settings.log_level, settings.log_format, sys.stderr, question_for(settings))
    announce_line = partial(announce, form=form_for(settings.log_format, sys.stderr))
    deadline, stopped = Deadline(settings.shutdown_seconds), asyncio.Event()

    def stop(*_: object) -> None:
        """The first signal ends the work, the second one what is still waited for."""
        if not stopped.is_set():
            logger.info("stopping: calls in work go back to the queue; Ctrl-C again stops at once")
            stopped.set()
            deadline.begin()
        else:
            deadline.hurry()
        end_process_after(deadline)

    with stop_signals() as listen_to_signals:
        listen_to_signals(stop)
        async with open_services(settings, log, deadline) as state:
            introduce(state)
            place, calls = place_of_data(settings), settings.task_queue_workers
            announce_line(f"working on the jobs of {place}, {calls} calls at once")
            async with _metrics(state, announce_line):
                await stopped.wait()


class _MetricsServer(uvicorn.Server):
    """uvicorn's, without its signals: the program has its own."""

    def capture_signals(self) -> nullcontext[None]:  # type: ignore[override]  # a context manager all the same
        return nullcontext()


@asynccontextmanager
async def _metrics(state: AppState, announce_line: Callable[[str], None]) -> AsyncIterator[None]:
    """``/metrics`` and ``/health`` while this is open. Raises ``CannotStart`` for a port that cannot be used."""
    settings = state.settings
    if settings.worker_metrics_port is None:
        yield
        return
    routes = [Route(f"/{each.__name__}", each, methods=["GET"]) for each in (health.metrics, health.health)]
    listener = bind(settings.host, settings.worker_metrics_port)
    app, entries = Starlette(routes=routes), state.scope_entries()

    async def with_state(scope: Scope, receive: Receive, send: Send) -> None:
        scope["state"] = entries
        await app(scope, receive, send)

    server = _MetricsServer(
        uvicorn.Config(with_state, ws="none", lifespan="off", access_log=False, log_config=None, log_level="warning")
    )
    serving = asyncio.create_task(server.serve([listener]), name="metrics of the worker")
    announce_line(f"metrics on http://{settings.host}:{listener.getsockname()[1]}/metrics")
    try:
        yield
    finally:
        server.should_exit = True
        await serving
