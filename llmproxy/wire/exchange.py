"""The record of one request, its caller, its part in a distributed trace, and its id. Rooms meet only through it."""

import secrets
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from itertools import count
from time import perf_counter
from typing import NamedTuple, Protocol

from llmproxy.wire.headers import HeaderList
from llmproxy.wire.records import record
from llmproxy.wire.vocabulary import CacheStatus, Phase, Reason


class Trace(Protocol):
    """One request's part in a trace, as W3C Trace Context describes it."""

    def propagate(self, headers: HeaderList) -> HeaderList:
        """A client's headers as the upstream gets them, with our part of the trace in place of the client's."""
        ...


class Tracer(Protocol):
    """Begins a request's part in its trace."""

    def begin(self, headers: Iterable[tuple[bytes, bytes]], started_at: float) -> Trace:
        """``headers`` are the client's, names in lower case; ``started_at`` is in Unix seconds. Raises nothing."""
        ...


class RequestIds:
    """Request ids: unique across processes by a random prefix, cheap within one by a counter."""

    def __init__(self) -> None:
        self._prefix = f"req_{secrets.token_hex(6)}"
        self._count = count(1)

    def next(self) -> str:
        return f"{self._prefix}{next(self._count):010x}"


@record
class Caller:
    """Who sends a request. The secret itself is never kept."""

    #: of the API key
    name: str = ""
    #: separates cached answers; "" is the shared scope
    scope: str = ""
    #: owns files, jobs and stored answers, whatever the cache shares; "" if callers are not distinguished
    owner: str = ""
    #: fingerprint of the credentials that are forwarded to the upstream; "" if none is
    credential: str = ""


@record
class Usage:
    """Tokens of one answer; None if the upstream did not count them."""

    prompt_tokens: int | None = None
    completion_tokens: int | None = None


ANYONE = Caller()
NO_USAGE = Usage()

#: where the exchange travels in an ASGI scope
EXCHANGE = "llmproxy.exchange"
#: an extension of the scope: the connection on which the request came, if our own server took it
CONNECTION = "llmproxy.connection"


@dataclass(slots=True)
class Exchange:
    """One request and what became of it. Times are ``time.perf_counter()`` seconds unless named ``_at`` (Unix)."""

    request_id: str
    method: str
    path: str
    started: float
    started_at: float
    caller: Caller = ANYONE
    #: address from which it came, "" for one that came over no network
    client: str = ""
    #: the endpoint's name: a row of ``wire.endpoints``, else "other", or the name of a route of ours
    endpoint: str = "other"
    model: str = ""
    stream: bool = False
    session: str = ""
    user: str = ""
    namespace: str = ""
    #: of the model, "" until it is known
    identity: str = ""
    #: of the URL, as the client sent it
    query: bytes = b""
    upstream: str = ""
    #: hex sha256, "" while there is none
    key: str = ""
    cache: CacheStatus | None = None
    reason: Reason | None = None
    #: why the fetched answer was kept or not
    stored: Reason | None = None
    status: int = 0
    usage: Usage = NO_USAGE
    first_byte: float | None = None
    finished: float | None = None
    #: seconds the upstream worked for this answer; on a hit: for the stored one
    upstream_seconds: float | None = None
    #: seconds per phase
    phases: dict[Phase, float] = field(default_factory=dict)
    #: of the answer to this request's own call upstream, for its caller alone
    upstream_headers: tuple[tuple[bytes, bytes], ...] = ()
    request_body: bytes = b""
    response_body: bytes = b""
    error: str = ""
    #: whether a history row is due
    recorded: bool = False
    #: its part in a distributed trace, None while nobody traces
    trace: Trace | None = None
    #: when the last phase ended
    marked: float = 0.0

    @property
    def seconds(self) -> float:
        """How long the request took; 0 for one that was never finished."""
        return 0.0 if self.finished is None else self.finished - self.started

    @property
    def first_byte_seconds(self) -> float | None:
        """Seconds until the first byte of the answer, None if there was none."""
        return None if self.first_byte is None else self.first_byte - self.started

    @property
    def failed(self) -> bool:
        """Whether the proxy or the upstream failed the request, also in the middle of a stream that began with 200. A
        request that only a stored answer may serve is not failed where there is none."""
        if self.stored is Reason.ONLY_IF_CACHED:
            return False
        return self.status >= 500 or (self.status < 400 and self.error != "")

    def mark(self, phase: Phase) -> None:
        """Ends the phase now; it began when the previous one ended. After the end of the request nothing is noted."""
        if self.finished is not None:
            # the flight goes on for others, or for nobody
            return
        now = perf_counter()
        self.phases[phase] = self.phases.get(phase, 0.0) + now - (self.marked or self.started)
        self.marked = now


class RepeatHit(NamedTuple):
    """One of many requests that got the same answer in one piece. ``template`` is the exchange of the first."""

    template: Exchange
    request_id: str
    #: Unix seconds
    started_at: float
    seconds: float
    #: address from which it came
    client: str = ""

    def exchange(self) -> Exchange:
        """The hit as the ordinary path would have recorded it."""
        return replace(
            self.template,
            request_id=self.request_id,
            client=self.client,
            started=0.0,
            started_at=self.started_at,
            first_byte=self.seconds,
            finished=self.seconds,
            phases={},
        )
