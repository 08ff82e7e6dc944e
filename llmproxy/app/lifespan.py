"""Opens the rooms from the bottom up, and closes them in reverse."""

import logging
import os
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial

from llmproxy import __version__
from llmproxy.admin.state import AdminState
from llmproxy.api.lifespan import open_jobs
from llmproxy.api.services import JobServices
from llmproxy.app.deadline import Deadline
from llmproxy.app.monitoring import open_monitoring
from llmproxy.app.sinks import RequestSinks
from llmproxy.app.state import AppState
from llmproxy.cache.raw_requests import RawRequestIndex
from llmproxy.cache.single_flight import Flights
from llmproxy.cache.tiers import TIERS, open_cache
from llmproxy.config.settings import OnDisconnect, Settings
from llmproxy.database.engine import Database, open_database
from llmproxy.database.faults import DatabaseFault, DatabaseUnusable
from llmproxy.history.history import history_for
from llmproxy.jobs import queries
from llmproxy.jobs.blob_stores import BlobsUnusable
from llmproxy.middleware.limits import InFlight
from llmproxy.observe.access_log import AccessLog
from llmproxy.observe.metrics import Metrics
from llmproxy.observe.performance import Rates
from llmproxy.observe.tracing import open_tracing
from llmproxy.proxy.broadcast import BroadcastBuffer
from llmproxy.proxy.confirmations import Confirmations
from llmproxy.proxy.credential_memory import AcceptedCredentials
from llmproxy.proxy.fetch import FAILURES
from llmproxy.proxy.request import BodyMemo
from llmproxy.proxy.response import Outcome
from llmproxy.proxy.services import ProxyServices
from llmproxy.upstream.identity import IdentityStore
from llmproxy.upstream.upstreams import Upstreams
from llmproxy.wire.exchange import RequestIds

log = logging.getLogger(__name__)


#: what to do where there is no model server
HOW_TO_START_ONE = """Start one, for example

    llama-server -m model.gguf          (llama.cpp, port 8080)
    ollama serve                        (Ollama, port 11434)
    llmproxy demo --serve-model         (a small one for a try, port 8080)

or say where it is: --upstream http://host:port, or LLMPROXY_UPSTREAM in the environment"""


class CannotStart(Exception):
    """The program cannot start; the message says what to do."""


@asynccontextmanager
async def open_services(settings: Settings, access: AccessLog, deadline: Deadline) -> AsyncIterator[AppState]:
    """Opens database, cache, history, upstreams, flights and jobs; at the end, what waits to be written is written.

    Raises ``CannotStart``.
    """
    metrics, rates = Metrics(__version__), Rates()
    async with AsyncExitStack() as stack:
        database = await stack.enter_async_context(await _open_database(settings.database))
        monitoring = await stack.enter_async_context(open_monitoring(database, metrics, deadline.left))
        # before the cache and the history, so that these are written before a collector is waited for
        tracing = open_tracing(os.environ, metrics, __version__)
        stack.push_async_callback(lambda: tracing.close(deadline.left()))
        cache = await stack.enter_async_context(open_cache(settings, database, monitoring.store_failed, deadline.left))
        history = history_for(settings, database, monitoring.database_failed)
        history.open()
        stack.push_async_callback(lambda: history.close(deadline.left()))
        sinks = RequestSinks(metrics, rates, monitoring.performance, access, history, tracing)
        stack.callback(sinks.batcher.close)
        upstreams = Upstreams(settings, IdentityStore(database))
        stack.push_async_callback(upstreams.close)
        await upstreams.open()
        if settings.require_upstream:
            await _require(upstreams)
        metrics.name_kinds(upstreams.kind)
        tracing.name_kinds(upstreams.kind)
        confirmations = Confirmations(settings.identity_wait)
        stack.push_async_callback(lambda: confirmations.close(deadline.requests_left()))
        grace = settings.disconnect_grace if settings.on_disconnect is OnDisconnect.CANCEL else None
        flights: Flights[BroadcastBuffer[Outcome]] = Flights(grace, lambda: cache.is_current)
        cache.part = flights.part
        stack.push_async_callback(lambda: flights.close(deadline.requests_left()))
        hot = RawRequestIndex(settings.cache_max_size, settings.cache_max_bytes, cache.touch, upstreams.current_epoch)
        accepted = AcceptedCredentials(refused=hot.clear)
        shared = (settings, cache, upstreams, flights, BodyMemo(), hot, accepted, confirmations)
        services = ProxyServices(*shared, metrics.upstream_failed, tracing.tracer)
        watched = (monitoring.rollups, monitoring.resources, monitoring.lag, database.size)
        admin = AdminState(cache, rates, history, sinks.batcher.drain, *watched)
        ids = RequestIds()
        jobs = None
        if settings.jobs:
            counting = (sinks.batcher.add, metrics.job_tried, metrics.answer_lost)
            try:
                jobs = await stack.enter_async_context(open_jobs(database, services, ids, *counting, deadline.left))
            except BlobsUnusable as error:
                raise CannotStart(str(error)) from error
        state = AppState(settings, services, jobs, admin, metrics, sinks, database, InFlight(), ids, monitoring)
        _register_refreshes(state)
        yield state


async def _require(upstreams: Upstreams) -> None:
    """Raises ``CannotStart`` if no model server answers."""
    if not upstreams.ready()[0]:
        # they were waited for very briefly
        await upstreams.models([])
    answers, reason = upstreams.ready()
    if not answers:
        raise CannotStart(f"{reason}\n\n{HOW_TO_START_ONE}")


async def _open_database(url: str) -> Database:
    """Opens the database; one that is down may come back. Raises ``CannotStart`` for one that will never be usable."""
    try:
        database = open_database(url)
    except DatabaseUnusable as error:
        raise CannotStart(str(error)) from error
    try:
        await database.verify()
    except DatabaseUnusable as error:
        await database.close()
        raise CannotStart(str(error)) from error
    except Exception:  # noqa: BLE001  whatever the driver raises, and the database has logged: requests go on without
        pass
    return database


def _register_refreshes(state: AppState) -> None:
    """Registers what ``/metrics`` reads at each scrape. First the batcher: what happened is counted before it is
    shown."""
    metrics, services, history = state.metrics, state.services, state.admin.history

    async def settle() -> None:
        state.sinks.batcher.drain()

    async def tiers() -> None:
        for name, stats in (await services.cache.stats()).items():
            metrics.set_tier(name, stats.entries, stats.bytes, stats.evictions)

    async def others() -> None:
        for tier, evictions in services.cache.evictions().items():
            metrics.set_evictions(tier, evictions)
        metrics.set_reclaimed(services.cache.reclaimed)
        metrics.set_history(history.written, history.lost)
        metrics.set_in_flight(state.in_flight.by_endpoint())
        metrics.set_upstreams(services.upstreams.up())
        state.monitoring.show()

    async def database() -> None:
        metrics.set_database(await state.database.size())

    for part, refresh in (("ledger", settle), ("tiers", tiers), ("database", database), ("others", others)):
        metrics.refresh_at_scrape(part, refresh)
    limits, together = _limits(state.settings)
    metrics.set_limits(limits, together)
    metrics.preset(limits, DatabaseFault, FAILURES)
    if state.jobs is not None:
        metrics.refresh_at_scrape("jobs", partial(_queue, metrics, state.jobs))


def _limits(settings: Settings) -> tuple[dict[str, int], int]:
    """The limits in bytes: of each tier, and of answers and history in the database together."""
    tiers = {name: kind.bytes(settings) for name, kind in TIERS.items()}
    return tiers, settings.cache_disk_bytes + (settings.history_bytes if settings.history else 0)


async def _queue(metrics: Metrics, jobs: JobServices) -> None:
    backlog = await queries.backlog(jobs.store)
    age = 0.0 if backlog.oldest is None else max(0.0, jobs.queue.clock() - backlog.oldest)
    metrics.set_queue(backlog.waiting, backlog.running, age)
