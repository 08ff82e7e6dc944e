"""``/health``, ``/ready``, ``/metrics``, and ``/api/health``: the state of each part of the program."""

import asyncio
import time
from enum import StrEnum
from typing import Any

import orjson
from starlette.requests import Request
from starlette.responses import Response

from llmproxy import __version__
from llmproxy.app.monitoring import DATABASE
from llmproxy.app.state import AppState, state_of
from llmproxy.database.faults import fault_of
from llmproxy.jobs import queries
from llmproxy.observe.metrics import CONTENT_TYPE
from llmproxy.upstream.model_server import ServerHealth

#: seconds that one check may take
_CHECK_SECONDS = 3.0


async def health(request: Request) -> Response:
    """The process lives."""
    return _json({"status": "ok", "version": __version__})


async def ready(request: Request) -> Response:
    """Whether the upstream answers and the database can be used; 503 with the reason otherwise."""
    state = state_of(request)
    reasons = [reason for reason in (_upstream_fault(state), await _database_fault(state)) if reason]
    warnings = [f"upstream {each.name}: {each.warning}" for each in state.services.upstreams.health() if each.warning]
    document = {"status": "unready" if reasons else "ready", "reasons": reasons, "warnings": warnings}
    return _json(document, 503 if reasons else 200)


async def metrics(request: Request) -> Response:
    """Prometheus' text format."""
    return Response(await state_of(request).metrics.exposition(), headers={"content-type": CONTENT_TYPE})


def _upstream_fault(state: AppState) -> str:
    answers, reason = state.services.upstreams.ready()
    return "" if answers else f"upstream: {reason}"


async def _database_fault(state: AppState) -> str:
    try:
        async with asyncio.timeout(_CHECK_SECONDS):
            async with state.database.read() as connection:
                await connection.exec_driver_sql("SELECT 1")
    except TimeoutError:
        return f"database: no answer within {_CHECK_SECONDS:g} s"
    except Exception as error:  # noqa: BLE001  whatever the driver raises, the answer is: not usable
        return f"database: {error}"
    return ""


def _json(document: object, status: int = 200) -> Response:
    return Response(orjson.dumps(document), status, media_type="application/json")


_QUEUE = "queue"
#: seconds that one part may take to tell
_PART_SECONDS = 3.0
#: an item of a job that has waited longer than this does not just wait for its turn
_LONGEST_WAIT = 900.0


class HealthStatus(StrEnum):
    """The state of one part of the program, and of the whole."""

    OK = "ok"
    #: requests are answered, but something does not work
    DEGRADED = "degraded"
    #: what is not in the cache cannot be answered
    DOWN = "down"
    #: switched off by a setting
    OFF = "off"


async def api_health(request: Request) -> Response:
    """``GET /api/health``. 503 if the whole program is ``down``."""
    state = state_of(request)
    database, cache, queue = await asyncio.gather(_database(state), _cache(state), _queue(state))
    upstreams = [_upstream(health) for health in state.services.upstreams.health()]
    overall = _overall([database, queue, *cache.values()], upstreams)
    document = {
        "status": overall,
        "version": __version__,
        "database": database,
        "cache": cache,
        "queue": queue,
        "upstreams": upstreams,
    }
    status = 503 if overall is HealthStatus.DOWN else 200
    return _json(document, status)


def _overall(parts: list[dict[str, Any]], upstreams: list[dict[str, Any]]) -> HealthStatus:
    if all(upstream["state"] == HealthStatus.DOWN for upstream in upstreams):
        return HealthStatus.DOWN
    well = {HealthStatus.OK, HealthStatus.OFF}
    return HealthStatus.OK if all(part["state"] in well for part in (*parts, *upstreams)) else HealthStatus.DEGRADED


async def _database(state: AppState) -> dict[str, Any]:
    began = time.perf_counter()
    try:
        async with asyncio.timeout(_PART_SECONDS):
            # a file that was replaced is still there for connections that had opened it
            await state.database.verify()
            size = await state.database.size()
    except Exception as error:  # noqa: BLE001 - whatever the driver raises: it is told, in our words
        state.monitoring.faults.note(DATABASE, fault_of(error))
        return _part(
            HealthStatus.DOWN, **_last(state, DATABASE), kind=state.database.dialect.name, latency_seconds=None
        )
    latency = time.perf_counter() - began
    # it answers, but what is written behind the requests may fail: a full disk stops writing and not reading
    status = HealthStatus.DEGRADED if state.monitoring.faults.failing(DATABASE) else HealthStatus.OK
    name, last = state.database.dialect.name, _last(state, DATABASE)
    return _part(status, **last, kind=name, latency_seconds=latency, bytes=size)


async def _cache(state: AppState) -> dict[str, dict[str, Any]]:
    """By tier. A tier whose database does not answer says so within its own time limits."""
    tiers: dict[str, dict[str, Any]] = {}
    latencies = await state.services.cache.latencies()
    for name, stats in (await state.services.cache.stats()).items():
        failing = state.monitoring.faults.failing(name)
        tiers[name] = _part(
            HealthStatus.DEGRADED if failing else HealthStatus.OK,
            **_last(state, name),
            latency_seconds=None if failing else latencies[name],
            entries=stats.entries,
            bytes=stats.bytes,
        )
    return tiers


async def _queue(state: AppState) -> dict[str, Any]:
    if state.jobs is None:
        return _part(HealthStatus.OFF)
    began = time.perf_counter()
    try:
        async with asyncio.timeout(_PART_SECONDS):
            backlog = await queries.backlog(state.jobs.store)
    except Exception as error:  # noqa: BLE001 - as above
        state.monitoring.faults.note(_QUEUE, fault_of(error))
        return _part(HealthStatus.DEGRADED, **_last(state, _QUEUE), latency_seconds=None)
    latency = time.perf_counter() - began
    age = 0.0 if backlog.oldest is None else max(0.0, state.jobs.queue.clock() - backlog.oldest)
    return _part(
        HealthStatus.DEGRADED if age > _LONGEST_WAIT else HealthStatus.OK,
        **_last(state, _QUEUE),
        latency_seconds=latency,
        waiting=backlog.waiting,
        running=backlog.running,
        oldest_seconds=age,
    )


def _upstream(health: ServerHealth) -> dict[str, Any]:
    return {
        "name": health.name,
        **_part(
            HealthStatus.OK if health.up else HealthStatus.DOWN,
            error=health.error or None,
            failed_at=health.failed_at,
            kind=health.kind,
            latency_seconds=health.latency,
            in_flight=health.in_flight,
            warning=health.warning or None,
        ),
    }


def _last(state: AppState, part: str) -> dict[str, Any]:
    fault = state.monitoring.faults.last(part)
    return {"error": fault.kind if fault else None, "failed_at": fault.at if fault else None}


def _part(state: HealthStatus, *, error: str | None = None, **known: Any) -> dict[str, Any]:
    """``last_error`` is the last fault, even if the part works again since."""
    return {"state": state, "last_error": error, **known}
