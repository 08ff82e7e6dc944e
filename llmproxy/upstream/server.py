"""One model server as it is known at the moment: what it is, what it lists, how busy and how reliable it is."""

import asyncio
import time
from dataclasses import dataclass, replace

from llmproxy.upstream.embedders import is_named_as_embedder
from llmproxy.upstream.identities import Remembered
from llmproxy.upstream.kinds import BY_NAME, GENERIC
from llmproxy.upstream.target import Kind, Reading, Target

_LONGEST_COOL_DOWN = 30.0
#: how long a server is taken not to have an endpoint: it may be upgraded at any time
_MISSING_SECONDS = 300.0

#: the name under which the identity of every unlisted name is remembered
_ANY = ""


@dataclass(frozen=True, slots=True)
class Health:
    """How one upstream fares. ``latency`` is how many seconds its last reading took, None before the first."""

    name: str
    kind: str
    up: bool
    in_flight: int
    latency: float | None
    #: the last failure of a reading or a call, "" where there was none since start; Unix seconds
    error: str
    failed_at: float | None


class Server:
    """State of one upstream. Times are of the monotonic clock unless said otherwise."""

    def __init__(self, target: Target, seen: Remembered | None = None) -> None:
        self.target = replace(target, kind=BY_NAME.get(seen.kind, target.kind)) if seen else target
        self.reading = _recalled(seen) if seen else Reading((), {})
        self.in_flight = 0
        #: whether it answered when it was last asked
        self.up = False
        #: whether the reading says anything else than what was last saved
        self.unsaved = False
        #: when the reading that is known was begun
        self.read_at = 0.0
        #: when a connection to it was last seen to be new: whoever answers may be another process since
        self.connected_at = 0.0
        #: held by whoever reads
        self.lock = asyncio.Lock()
        self._refusals = 0
        self._cool_until = 0.0
        #: endpoints that it does not have -> until when that is believed
        self._missing: dict[str, float] = {}
        #: how many seconds the last reading took
        self.latency: float | None = None
        self._error = ""
        self._failed_at: float | None = None

    @property
    def name(self) -> str:
        return self.target.name

    def lists(self, model: str) -> bool:
        return self.target.kind.canonical(model) in self.reading.identities

    def identity(self, model: str) -> str:
        """What stands behind a name: a hex sha256, or the name itself where the server does not tell."""
        name = self.target.kind.canonical(model)
        return self.reading.identities.get(name, self.reading.default or name)

    @property
    def text_models(self) -> list[str]:
        """The ids of the listed models that make text, in the list's order."""
        listed = [str(model["id"]) for model in self.reading.models]
        return [name for name in listed if name not in self.reading.embedders and not is_named_as_embedder(name)]

    def may_serve(self, model: str) -> bool:
        """False only where it told which models it has, and that they are all it has."""
        closed = self.up and bool(self.reading.models) and self.reading.default is None
        return not closed or self.lists(model)

    @property
    def serves_models(self) -> bool:
        """Whether it is a model server at all: any web server answers."""
        return self.up and (self.target.kind is not GENERIC or bool(self.reading.models))

    def learn(self, kind: Kind, reading: Reading, read_at: float) -> bool:
        """Takes a new reading. True if anything else than before stands behind a name, or it is of another kind."""
        before, self.reading, self.read_at = self.reading, reading, read_at
        changed = kind is not self.target.kind
        if changed:
            self.target = replace(self.target, kind=kind)
        changed |= (before.identities, before.default) != (reading.identities, reading.default)
        self.unsaved |= changed
        self.answered()
        return changed

    def remembered(self) -> Remembered:
        """What is worth to be known after a restart."""
        identities = dict(self.reading.identities)
        if self.reading.default is not None:
            identities[_ANY] = self.reading.default
        return Remembered(self.name, self.target.kind.name, identities, time.time())

    @property
    def health(self) -> Health:
        kind = self.target.kind.name
        return Health(self.name, kind, self.up, self.in_flight, self.latency, self._error, self._failed_at)

    def failed(self, message: str) -> None:
        """Notes why a reading or a call failed."""
        self._error, self._failed_at = message, time.time()

    def answered(self) -> bool:
        """Notes a success. True if it is the first after a failure."""
        recovered = not self.up
        if recovered:
            self._missing.clear()
        self.up, self._refusals, self._cool_until = True, 0, 0.0
        return recovered

    def silent(self) -> bool:
        """Notes that it did not answer when asked. True if it did the time before."""
        lost, self.up = self.up, False
        return lost

    def refused(self, now: float) -> bool:
        """Notes that no connection was to be had: it is left alone for 1, 2, 4, ... 30 seconds. True if it was up."""
        lost, self.up = self.up, False
        self._cool_until = now + min(2.0**self._refusals, _LONGEST_COOL_DOWN)
        self._refusals += 1
        return lost

    def lacks(self, endpoint: str, now: float) -> bool:
        """Whether it was seen not to have this endpoint, a name in ``wire.endpoints``."""
        return now < self._missing.get(endpoint, 0.0)

    def lacking(self, endpoint: str, now: float) -> None:
        """Notes that it does not have this endpoint."""
        self._missing[endpoint] = now + _MISSING_SECONDS

    def cooling(self, now: float) -> bool:
        return now < self._cool_until

    def begun(self) -> None:
        self.in_flight += 1

    def ended(self) -> None:
        self.in_flight -= 1


def _recalled(seen: Remembered) -> Reading:
    identities = {name: identity for name, identity in seen.identities.items() if name != _ANY}
    models = tuple(
        {"id": name, "object": "model", "created": int(seen.seen_at), "owned_by": seen.kind} for name in identities
    )
    return Reading(models, identities, seen.identities.get(_ANY))
