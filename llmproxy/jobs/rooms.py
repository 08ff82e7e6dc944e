"""What the faces of the job queue need, put together once."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import cast

from starlette.requests import HTTPConnection

from llmproxy.jobs.answers.answers import Answers
from llmproxy.jobs.blobs import Blobs
from llmproxy.jobs.changes import Changes
from llmproxy.jobs.queue import Queue
from llmproxy.jobs.store import Store
from llmproxy.proxy.rooms import Rooms
from llmproxy.wire.exchange import EXCHANGE, Exchange
from llmproxy.wire.ids import RequestIds


@dataclass(frozen=True, slots=True)
class JobRooms:
    """``proxy`` is what the life of a request needs. ``count`` takes each finished exchange."""

    proxy: Rooms
    store: Store
    queue: Queue
    changes: Changes
    blobs: Blobs
    answers: Answers
    ids: RequestIds
    count: Callable[[Exchange], None]


def rooms_of(connection: HTTPConnection) -> JobRooms:
    return cast(JobRooms, connection.scope["state"]["jobs"])


def exchange_of(connection: HTTPConnection) -> Exchange:
    return cast(Exchange, connection.scope[EXCHANGE])
