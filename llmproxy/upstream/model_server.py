"""One model server as it is known at the moment: what it is, what it lists, how busy and how reliable it is."""

import asyncio
import time
from dataclasses import dataclass, field, replace

from llmproxy.upstream.identity import SavedIdentity, more_precise
from llmproxy.upstream.kinds import BY_NAME, GENERIC
from llmproxy.upstream.target import NOTHING_KNOWN, Identities, Kind, ServerInfo, Target
from llmproxy.wire.headers import HeaderList

#: in the names of models whose server does not tell what they are for
_WORDS = ("embed", "rerank")

_LONGEST_COOL_DOWN = 30.0
#: how long a server is taken not to have an endpoint: it may be upgraded at any time
_MISSING_SECONDS = 300.0

#: the name under which the identity of every unlisted name is remembered
_ANY = ""

#: how long it is remembered that a name's identity has changed: longer than any answer takes
_CHANGE_SECONDS = 3600.0


@dataclass(frozen=True, slots=True)
class ServerHealth:
    """How one upstream fares. ``latency`` is how many seconds its last reading took, None before the first."""

    name: str
    kind: str
    up: bool
    in_flight: int
    latency: float | None
    #: the last failure of a reading or a call, "" where there was none since start; Unix seconds
    error: str
    failed_at: float | None
    #: what is odd about it although it answers, "" if nothing is
    warning: str = ""


@dataclass(slots=True, eq=False)
class Attempt:
    """One reading under way. ``credentials`` are a caller's, where the server asks for some and the proxy has none."""

    credentials: HeaderList
    #: monotonic; infinite while it has not begun
    begun: float = float("inf")
    task: asyncio.Task[bool] = field(init=False)


class Server:
    """State of one upstream. Times are of the monotonic clock unless said otherwise."""

    def __init__(self, target: Target, seen: SavedIdentity | None = None) -> None:
        self.target = replace(target, kind=BY_NAME.get(seen.kind, target.kind)) if seen else target
        self.reading = _recalled(seen) if seen else ServerInfo((), {})
        self.in_flight = 0
        #: whether it answered when it was last asked
        self.up = False
        #: whether it says what it is only to callers with a key
        self.locked = False
        #: fingerprint of the key to which it last said so, "" where it asks for none
        self.opened_by = ""
        #: whether the reading says anything else than what was last saved
        self.unsaved = False
        #: when the reading that is known was begun, 0 before the first
        self.read_at = 0.0
        #: when a connection to it was last seen to be new: whoever answers may be another process since
        self.connected_at = 0.0
        #: when something passed through that may have changed its models
        self.doubted_at = 0.0
        #: the reading under way, and when the last one was begun
        self.attempt: Attempt | None = None
        self.tried_at = 0.0
        self._recalled = seen is not None
        self._lost = False
        #: when another identity was first read behind a name
        self._changes: dict[str, float] = {}
        self._refusals = 0
        self._cool_until = 0.0
        #: endpoints that it does not have -> until when that is believed
        self._missing: dict[str, float] = {}
        #: how many seconds the last reading took
        self.latency: float | None = None
        self._error = ""
        self._failed_at: float | None = None

    def __str__(self) -> str:
        if not self.up:
            return f"{self.name} (no answer yet)"
        warning = f" ({self.reading.warning})" if self.reading.warning else ""
        return f"{self.target.kind.name} at {self.name}{warning}"

    @property
    def name(self) -> str:
        return self.target.name

    @property
    def heard_of(self) -> bool:
        """Whether it ever said what it is, be it before the start."""
        return self.read_at > 0 or self._recalled

    def lists(self, model: str) -> bool:
        return self.target.kind.canonical(model) in self.reading.identities

    def identity(self, model: str) -> str | None:
        """What stands behind a name: a hex sha256, the name itself where the server tells none of its models', or None
        where it cannot be told."""
        name, kind = self.target.kind.canonical(model), self.target.kind
        if not kind.tells:
            return name if self.heard_of else None
        return self.reading.identities.get(name, self.reading.default)

    def due(self, now: float, seconds: float) -> bool:
        """Whether what is known must not be relied on before a new reading: it may be wrong, or is older than
        ``seconds``. Of a server that is down what was read last stands; it is asked often, and not by those who wait.
        """
        if self.doubted or not self.heard_of:
            return True
        return self.up and self.target.kind.tells and now - self.read_at > seconds

    @property
    def doubted(self) -> bool:
        return self.target.kind.tells and self.doubted_at >= self.read_at and self.doubted_at > 0

    def fresh_until(self, seconds: float) -> float:
        """Until when ``due`` will say no, if nothing happens."""
        if self.doubted:
            return 0.0
        return self.read_at + seconds if self.up and self.target.kind.tells else float("inf")

    def changed_since(self, model: str, moment: float) -> bool:
        """Whether another identity than before has been read behind a name since then."""
        return self._changes.get(self.target.kind.canonical(model), 0.0) > moment

    @property
    def lists_models(self) -> bool:
        """Whether it said which models it has. Who has one only may answer to any name, and lists that one."""
        return bool(self.reading.models)

    @property
    def text_models(self) -> list[str]:
        """The ids of the listed models that make text, in the list's order."""
        return [name for name in self._listed if not self._only_embeds(name)]

    @property
    def embedding_models(self) -> list[str]:
        """The ids of the others: they only make embeddings."""
        return [name for name in self._listed if self._only_embeds(name)]

    @property
    def _listed(self) -> list[str]:
        return [str(model["id"]) for model in self.reading.models]

    def _only_embeds(self, name: str) -> bool:
        return self.target.kind.canonical(name) in self.reading.embedders or is_named_as_embedder(name)

    def may_serve(self, model: str) -> bool:
        """False only where it told which models it has, and that they are all it has."""
        closed = self.up and self.lists_models and self.reading.default is None
        return not closed or self.lists(model)

    @property
    def serves_models(self) -> bool:
        """Whether it is a model server at all: any web server answers."""
        return self.up and (self.target.kind is not GENERIC or bool(self.reading.models))

    @property
    def previous(self) -> Identities:
        """What it said before, for as long as it may be the same process that goes on."""
        return NOTHING_KNOWN if self._lost else self.reading.identities

    def learn(self, kind: Kind, reading: ServerInfo, read_at: float) -> bool:
        """Takes a new reading. True if anything else than before stands behind a name, or it is of another kind."""
        before, self.reading, self.read_at = self.reading, reading, read_at
        changed = kind is not self.target.kind
        if changed:
            self.target = replace(self.target, kind=kind)
        changed |= (before.identities, before.default) != (reading.identities, reading.default)
        if changed:
            self._note_changes(before.identities, reading.identities, read_at)
        self.unsaved |= changed
        self._lost = False
        self.answered()
        return changed

    def _note_changes(self, before: Identities, after: Identities, read_at: float) -> None:
        recent = {name: at for name, at in self._changes.items() if at > read_at - _CHANGE_SECONDS}
        for name in before.keys() | after.keys():
            old, new = before.get(name), after.get(name)
            if old != new and not (old is not None and new is not None and more_precise(new, old)):
                recent[name] = read_at
        self._changes = recent

    def remembered(self) -> SavedIdentity:
        """What is worth to be known after a restart."""
        identities = dict(self.reading.identities)
        if self.reading.default is not None:
            identities[_ANY] = self.reading.default
        return SavedIdentity(self.name, self.target.kind.name, identities, time.time())

    @property
    def health(self) -> ServerHealth:
        kind = self.target.kind.name
        times = (self.latency, self._error, self._failed_at)
        return ServerHealth(self.name, kind, self.up, self.in_flight, *times, self.reading.warning)

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
        self._lost |= lost
        return lost

    def refused(self, now: float) -> bool:
        """Notes that no connection was to be had: it is left alone for 1, 2, 4, ... 30 seconds. True if it was up."""
        lost = self.silent()
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


def _recalled(seen: SavedIdentity) -> ServerInfo:
    identities = {name: identity for name, identity in seen.identities.items() if name != _ANY}
    models = tuple(
        {"id": name, "object": "model", "created": int(seen.seen_at), "owned_by": seen.kind} for name in identities
    )
    return ServerInfo(models, identities, seen.identities.get(_ANY))


def is_named_as_embedder(model: str) -> bool:
    """Whether its name says that it makes embeddings: all that there is to go by where a server does not tell.

    llama.cpp calls every model capable of completion.
    """
    return any(word in model.lower() for word in _WORDS)
