"""``GET /api/performance``: how requests fared in a window of time, step by step too, and what the program uses now."""

import asyncio
import time
from dataclasses import asdict
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from llmproxy.admin.params import query_parameters
from llmproxy.admin.state import AdminState, state_of
from llmproxy.api.http import json_response
from llmproxy.api.services import JobServices
from llmproxy.jobs import queries
from llmproxy.observe.performance import points, report
from llmproxy.wire.validation import query_choice

#: window -> its seconds, and the seconds of the spans it is made of
WINDOWS = {
    "5m": (300, 60),
    "1h": (3600, 60),
    "24h": (86_400, 3600),
    "7d": (7 * 86_400, 3600),
    "30d": (30 * 86_400, 3600),
}
#: window -> the seconds of one step of its series
STEPS = {"5m": 60, "1h": 60, "24h": 3600, "7d": 3 * 3600, "30d": 12 * 3600}

#: seconds that one part may take to tell
_PART_SECONDS = 3.0


async def performance(request: Request) -> Response:
    """``GET /api/performance?window=5m|1h|24h|7d|30d``.

    A window ends now and begins with a whole minute or hour, so it is up to one of them shorter than its name says.
    ``complete`` is false if the database did not answer and only this process's last minutes are known.
    """
    state = state_of(request)
    window = query_choice(query_parameters(request, ("window",)), "window", WINDOWS) or "1h"
    state.settle()
    until = time.time()
    start = _start(until, *WINDOWS[window])
    cells, complete = await state.rollups.since(start)
    figures = await asyncio.to_thread(report, cells, start, until)
    jobs: JobServices | None = request.scope["state"]["jobs"]
    now = {"resources": _resources(state), "queue": await _queue(jobs), "database": await _database(state)}
    document = {
        "window": window,
        "complete": complete,
        **figures,
        "all_time": await state.rollups.all_time(),
        "now": now,
    }
    return json_response(document)


async def series(request: Request) -> Response:
    """``GET /api/performance/series?window=5m|1h|24h|7d|30d``: the same step by step; the last step is not over.

    ``complete`` is as in ``performance``.
    """
    state = state_of(request)
    window = query_choice(query_parameters(request, ("window",)), "window", WINDOWS) or "1h"
    state.settle()
    until, step = time.time(), STEPS[window]
    start = _start(until, WINDOWS[window][0], step)
    steps, complete = await state.rollups.steps(start, step)
    data = await asyncio.to_thread(points, steps, start, until, step)
    return json_response({"window": window, "complete": complete, "step_seconds": step, "data": data})


def _start(until: float, seconds: int, span: int) -> int:
    """The first second of the first whole span of the window."""
    return -int((seconds - until) // span) * span


def _resources(state: AdminState) -> dict[str, Any]:
    lag = {"mean_seconds": state.lag.mean, "max_seconds": state.lag.highest}
    sample = state.resources.latest
    return {**(asdict(sample) if sample is not None else {}), "event_loop_lag": lag}


async def _queue(jobs: JobServices | None) -> dict[str, Any] | None:
    """None if there are no jobs, or the database does not answer."""
    if jobs is None:
        return None
    try:
        async with asyncio.timeout(_PART_SECONDS):
            backlog = await queries.backlog(jobs.store)
    except Exception:  # noqa: BLE001 - whatever the driver raises: the other figures are shown
        return None
    age = 0.0 if backlog.oldest is None else max(0.0, jobs.queue.clock() - backlog.oldest)
    return {"waiting": backlog.waiting, "running": backlog.running, "oldest_seconds": age}


async def _database(state: AdminState) -> dict[str, Any] | None:
    try:
        async with asyncio.timeout(_PART_SECONDS):
            return {"bytes": await state.database_size()}
    except Exception:  # noqa: BLE001 - as above
        return None
