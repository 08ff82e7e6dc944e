"""What an exchange ends with: the outcome of an upstream call, and the answer to one caller."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from llmproxy.cache.entry import Entry
from llmproxy.cache.single_flight import Flight
from llmproxy.proxy.broadcast import BroadcastBuffer, BroadcastReader
from llmproxy.proxy.view import View
from llmproxy.wire.dialect import Dialect
from llmproxy.wire.errors import ProxyError, UpstreamStatus
from llmproxy.wire.exchange import NO_USAGE, Usage
from llmproxy.wire.vocabulary import Reason

HeaderList = list[tuple[bytes, bytes]]


@dataclass(frozen=True, slots=True)
class Fetched:
    """An upstream call that came to its proper end. ``document`` is the plain answer, JSON.

    ``reason`` says whether it was kept: STORED, or why not. ``entries`` is what was kept of it. ``both``: whether it
    serves callers of the other form than the one in which it came. ``parts`` are the entries of an answer that is kept
    input by input, kept or not, in the order of the inputs.

    ``type`` is the content type of what is no answer that its endpoint knows: it is given as it came, whoever asked. It
    is empty where the upstream named none, and None for an answer.
    """

    document: bytes
    reason: Reason
    usage: Usage = NO_USAGE
    seconds: float = 0.0
    entries: tuple[Entry, ...] = ()
    headers: tuple[tuple[bytes, bytes], ...] = ()
    both: bool = True
    parts: tuple[Entry, ...] = ()
    type: bytes | None = None


@dataclass(frozen=True, slots=True)
class Failed:
    """An upstream call that did not. ``error`` is what a caller is told who has not been sent anything yet."""

    error: ProxyError
    reason: Reason

    @property
    def leaders_own(self) -> bool:
        """Whether it says something about the leader rather than about the request: its key, its abandonment, the form
        it asked for. Who followed and was sent nothing yet can lead."""
        if self.reason in (Reason.ABANDONED, Reason.TOO_LARGE):
            return True
        return isinstance(self.error, UpstreamStatus) and self.error.http_status in (401, 403)


@dataclass(frozen=True, slots=True)
class OtherForm:
    """A flight has a stream where a plain answer was asked for, or the other way round, and neither can be made of the
    other."""


Outcome = Fetched | Failed


@dataclass(frozen=True, slots=True)
class Whole:
    """An answer that is there as a whole."""

    status: int
    headers: HeaderList
    body: bytes
    #: the body where it is not in one piece: parts of a stored one
    parts: Sequence[memoryview] = ()


@dataclass(frozen=True, slots=True)
class Paced:
    """A stored stream, replayed in its own time. ``pieces`` are (milliseconds since the start, bytes)."""

    headers: HeaderList
    pieces: list[tuple[int, bytes]]


@dataclass(frozen=True, slots=True)
class Live:
    """An answer on its way. The one who delivers it leaves the flight at the end."""

    headers: HeaderList
    reader: BroadcastReader[Outcome]
    flight: Flight[BroadcastBuffer[Outcome]]
    dialect: Dialect
    view: View
    #: frames for a stream, raw pieces of one document otherwise
    stream: bool = True
    status: int = 200
    #: begins a flight in this caller's own form, for when this one turns out to be of no use
    own: Callable[[], Flight[BroadcastBuffer[Outcome]]] | None = None


Answer = Whole | Paced | Live
