"""What the handlers of the callers' API find in a request's scope."""

from dataclasses import dataclass
from typing import cast

from starlette.requests import HTTPConnection

from llmproxy.jobs.blobs import Blobs
from llmproxy.jobs.notifications import JobNotifications
from llmproxy.jobs.queue import Queue
from llmproxy.jobs.store import Store
from llmproxy.jobs.stored import StoredAnswers
from llmproxy.proxy.services import ProxyServices
from llmproxy.wire.exchange import EXCHANGE, Exchange


@dataclass(frozen=True, slots=True)
class JobServices:
    """``proxy`` is what the life of a request needs."""

    proxy: ProxyServices
    store: Store
    queue: Queue
    notifications: JobNotifications
    blobs: Blobs
    answers: StoredAnswers


def job_services(connection: HTTPConnection) -> JobServices:
    return cast(JobServices, connection.scope["state"]["jobs"])


def exchange_of(connection: HTTPConnection) -> Exchange:
    return cast(Exchange, connection.scope[EXCHANGE])
