"""``/health``, ``/ready``, ``/metrics``."""

import asyncio

import orjson
from starlette.requests import Request
from starlette.responses import Response

from llmproxy import __version__
from llmproxy.app.state import AppState, state_of
from llmproxy.observe.metrics import CONTENT_TYPE

#: seconds that one check may take
_CHECK_SECONDS = 3.0


async def health(request: Request) -> Response:
    """The process lives."""
    return _json({"status": "ok", "version": __version__})


async def ready(request: Request) -> Response:
    """Whether the upstream answers and the database can be used; 503 with the reason otherwise."""
    state = state_of(request)
    reasons = [reason for reason in (_upstream(state), await _database(state)) if reason]
    document = {"status": "unready" if reasons else "ready", "reasons": reasons}
    return _json(document, 503 if reasons else 200)


async def metrics(request: Request) -> Response:
    """Prometheus' text format."""
    return Response(await state_of(request).metrics.exposition(), headers={"content-type": CONTENT_TYPE})


def _upstream(state: AppState) -> str:
    answers, reason = state.services.upstreams.ready()
    return "" if answers else f"upstream: {reason}"


async def _database(state: AppState) -> str:
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
