"""The whole program as an ordinary ASGI application with a lifespan."""

import logging
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from starlette.types import ASGIApp, Receive, Scope, Send

from llmproxy.app.deadline import Deadline
from llmproxy.app.lifespan import CannotStart, open_services
from llmproxy.app.routes import route_table
from llmproxy.app.state import AppState
from llmproxy.app.terminal import question_for
from llmproxy.config.load import ConfigError, load
from llmproxy.config.settings import Settings
from llmproxy.middleware.stack import RequestStack
from llmproxy.observe.access_log import AccessLog
from llmproxy.observe.logs import configure_package

log = logging.getLogger(__name__)


def create_app(settings: Settings | None = None) -> "Application":
    """The application, for any ASGI server: ``uvicorn --factory llmproxy.app:create_app``.

    Without ``settings`` they are read when the server starts the lifespan: from ``llmproxy.toml`` and the environment,
    as ``llmproxy serve`` reads them.
    """
    return Application(settings)


class Application:
    """ASGI 3. The services are opened when the lifespan starts, and closed, with all that waits written, when it ends.

    ``llmproxy serve`` calls ``open`` itself, because it also needs what is opened.
    """

    def __init__(self, settings: Settings | None) -> None:
        self._settings = settings
        self._requests: ASGIApp = _refuse_unopened

    @asynccontextmanager
    async def open(self, settings: Settings, access: AccessLog, deadline: Deadline) -> AsyncIterator[AppState]:
        """Opens the services; meanwhile the application answers requests. Raises ``CannotStart``."""
        async with open_services(settings, access, deadline) as state:
            count, tracer = state.sinks.batcher.add, state.services.tracer
            table, ids, entries = route_table(settings), state.ids, state.scope_entries()
            state.sinks.operating = table.operating
            self._requests = RequestStack(table, settings, ids, count, state.in_flight, tracer, entries)
            yield state

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        kind = scope["type"]
        if kind == "http":
            await self._requests(scope, receive, send)
        elif kind == "lifespan":
            await self._lifespan(receive, send)
        else:
            # of WebSockets there are none: closed before it is accepted, a handshake is answered with 403
            await receive()
            await send({"type": f"{kind}.close"})

    async def _lifespan(self, receive: Receive, send: Send) -> None:
        """Runs from the server's start to its end. Errors are sent to the server, which logs them in its own form."""
        await receive()
        event = "startup"
        try:
            settings = self._settings or load({}).settings
            access = configure_package(settings.log_level, settings.log_format, sys.stderr, question_for(settings))
            deadline = Deadline(settings.shutdown_seconds)
            async with self.open(settings, access, deadline) as state:
                await send({"type": "lifespan.startup.complete"})
                await receive()
                event = "shutdown"
                deadline.begin()
                state.stop()
        except (CannotStart, ConfigError) as error:
            await send({"type": f"lifespan.{event}.failed", "message": f"llmproxy: {error}"})
        except Exception as error:
            # whatever it is, the server is told, which ends the process
            log.exception("%s failed", event)
            await send({"type": f"lifespan.{event}.failed", "message": f"llmproxy: {event} failed: {error}"})
        else:
            await send({"type": "lifespan.shutdown.complete"})


async def _refuse_unopened(scope: Scope, receive: Receive, send: Send) -> None:
    raise RuntimeError("llmproxy needs a server that starts the application's lifespan; this one did not")
