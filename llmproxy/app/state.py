"""The opened rooms, as requests find them in their scope."""

from dataclasses import dataclass
from typing import cast

from starlette.requests import HTTPConnection
from starlette.types import ASGIApp, Receive, Scope, Send

from llmproxy.admin.state import AdminState
from llmproxy.api.services import JobServices
from llmproxy.app.monitoring import Monitoring
from llmproxy.app.sinks import RequestSinks
from llmproxy.config.settings import Settings
from llmproxy.database.engine import Database
from llmproxy.middleware.in_flight import InFlight
from llmproxy.observe.metrics import Metrics
from llmproxy.proxy.services import ProxyServices
from llmproxy.wire.exchange import RequestIds


@dataclass(frozen=True, slots=True)
class AppState:
    settings: Settings
    services: ProxyServices
    #: None where they are switched off
    jobs: JobServices | None
    admin: AdminState
    metrics: Metrics
    accounts: RequestSinks
    database: Database
    in_flight: InFlight
    ids: RequestIds
    watch: Monitoring

    def stop(self) -> None:
        """The server stops: streams that tell of what goes on elsewhere end now, not when they are cut off."""
        if self.jobs is not None:
            self.jobs.changes.close()


class WithState:
    """Pure ASGI, outermost: puts the rooms into every request's scope."""

    def __init__(self, app: ASGIApp, state: AppState) -> None:
        self._app = app
        self._entries = {"services": state.services, "jobs": state.jobs, "admin": state.admin, "app": state}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        scope["state"] = self._entries
        # Starlette raises its 404 and 405 where there is an application to render them, else it sends plain text
        scope["app"] = self
        await self._app(scope, receive, send)


def state_of(connection: HTTPConnection) -> AppState:
    return cast(AppState, connection.scope["state"]["app"])
