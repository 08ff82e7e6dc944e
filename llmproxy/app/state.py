"""The services that were opened, as requests find them in their scope."""

from dataclasses import dataclass
from typing import Any, cast

from starlette.requests import HTTPConnection

from llmproxy.admin.state import AdminState
from llmproxy.api.services import JobServices
from llmproxy.app.monitoring import Monitoring
from llmproxy.app.sinks import RequestSinks
from llmproxy.config.settings import Settings
from llmproxy.database.engine import Database
from llmproxy.middleware.limits import InFlight
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
    sinks: RequestSinks
    database: Database
    in_flight: InFlight
    ids: RequestIds
    monitoring: Monitoring

    def stop(self) -> None:
        """Ends the event streams of jobs, since the server stops."""
        if self.jobs is not None:
            self.jobs.notifications.close()

    def scope_entries(self) -> dict[str, Any]:
        """What every request finds under ``state`` in its ASGI scope."""
        return {"services": self.services, "jobs": self.jobs, "admin": self.admin, "app": self}


def state_of(connection: HTTPConnection) -> AppState:
    return cast(AppState, connection.scope["state"]["app"])
