"""All model servers: which one serves a model, what stands behind the model's name, and how they fare."""

import asyncio
from collections.abc import Collection, Mapping
from contextlib import suppress
from dataclasses import replace
from operator import attrgetter
from time import monotonic

from llmproxy.config.settings import Settings
from llmproxy.upstream.client import CallTimeouts, HttpClient, send
from llmproxy.upstream.decoding import decoded
from llmproxy.upstream.identity import IdentityStore, more_precise, together
from llmproxy.upstream.kinds import GENERIC, KINDS
from llmproxy.upstream.model_server import Server, ServerHealth
from llmproxy.upstream.probe import Probe, Readings
from llmproxy.upstream.target import Call, Document, Reply, Target
from llmproxy.wire.errors import NotFound, UpstreamError, UpstreamRefused
from llmproxy.wire.headers import HeaderList
from llmproxy.wire.records import record

#: where model servers listen by default
USUAL = {
    "llama.cpp": "http://127.0.0.1:8080",
    "Ollama": "http://127.0.0.1:11434",
    "LM Studio": "http://127.0.0.1:1234",
    "vLLM": "http://127.0.0.1:8000",
}

#: how long the start waits for them
_PROBE_SECONDS = 0.3
#: how long a caller waits for a fresh list of models
_LIST_SECONDS = 1.0
#: how often a server that nobody asks anything is asked whether it is there
_IDLE_SECONDS = 60.0
#: how often a server that does not answer is asked again
_RETRY_SECONDS = 2.0
#: models that are named in a header
_MOST_NAMED = 20
#: least time between two rounds of readings in the background
_DEBOUNCE_SECONDS = 0.5


@record
class AnswerOrigin:
    """Where an answer came from: the server, and what its request asked for.

    ``identity`` is what the key was made of, ``keyed_at`` when; ``ended_at`` when the answer was complete (monotonic).
    """

    target: Target
    model: str
    path: str
    identity: str
    keyed_at: float
    ended_at: float


class Upstreams:
    """Made inside the running loop, opened and closed with the program.

    While requests come, a task keeps the readings young. Without any it asks for no more than whether the servers are
    there: the first request then waits for a reading.
    """

    def __init__(
        self, settings: Settings, store: IdentityStore | None = None, usual: Mapping[str, str] = USUAL
    ) -> None:
        self._settings = settings
        self._store = store
        self._usual = usual
        self._limits = CallTimeouts.of(settings)
        self._client = HttpClient()
        self._readings = Readings(Probe(self._client, settings), self._read)
        #: where a server may be; ``_servers`` are those that count
        self._places: dict[str, Server] = {}
        self._servers: dict[str, Server] = {}
        self._wake = asyncio.Event()
        self._keeper: asyncio.Task[None] | None = None
        #: grows whenever anything else than before stands behind a name, or a server is of another kind
        self.epoch = 0
        #: whether anything was asked for since the last round of readings, and until when all readings are young
        self._wanted = False
        self._young_until = 0.0

    async def open(self) -> None:
        """Finds the servers; waits for their answers for a moment only. Never fails for a server's sake."""
        seen = await self._store.load() if self._store else {}
        for url in self._settings.upstream or self._usual.values():
            target = Target.at(url, GENERIC)
            self._places[target.name] = Server(target, seen.get(target.name))
        await self._readings.read_all(self._places.values(), monotonic(), [], _PROBE_SECONDS)
        if self._settings.upstream:
            self._servers = self._places
        elif not self._adopt():
            # nothing is there now: what is cached can still be found if it is known what was there last
            last = max(
                (row for row in seen.values() if row.upstream in self._places),
                key=attrgetter("seen_at"),
                default=None,
            )
            self._servers = {last.upstream: self._places[last.upstream]} if last else {}
        self._read(changed=False)
        self._wake.clear()
        self._keeper = asyncio.create_task(self._keep(), name="upstream readings")

    async def close(self) -> None:
        if self._keeper is not None:
            self._keeper.cancel()
            with suppress(asyncio.CancelledError):
                await self._keeper
            await self._save()
        await self._readings.close()
        await self._client.aclose()

    @property
    def targets(self) -> tuple[Target, ...]:
        return tuple(server.target for server in self._servers.values())

    def describe(self) -> str:
        """Who is there, in a few words, for the start-up line."""
        return ", ".join(map(str, self._servers.values()))

    def up(self) -> dict[str, bool]:
        """Whether each server answered when it was last asked, by name."""
        return {name: server.up for name, server in self._servers.items()}

    def kind(self, name: str) -> str:
        """The kind of the server with this name; "" for one that is not known."""
        server = self._servers.get(name)
        return server.target.kind.name if server is not None else ""

    def health(self) -> list[ServerHealth]:
        """How each server fares, by what is known without asking it."""
        return [server.health for server in self._servers.values()]

    @property
    def in_flight(self) -> int:
        """Calls that are upstream now."""
        return sum(server.in_flight for server in self._servers.values())

    @property
    def slots(self) -> int | None:
        """How many calls the servers that are there work on at once, None where none of them tells."""
        reported = [server.reading.slots for server in self._servers.values() if server.up and server.reading.slots]
        return sum(reported) if reported else None

    @property
    def first_model(self) -> str:
        """The first model that a server lists and that makes text, of those that answer if any does; "" where none is
        known."""
        servers = sorted(self._servers.values(), key=lambda server: not server.up)
        return next((name for server in servers for name in server.text_models), "")

    @property
    def embedding_models(self) -> list[str]:
        """The first few models that only make embeddings, as the servers list them."""
        found = (name for server in self._servers.values() for name in server.embedding_models)
        return list(dict.fromkeys(found))[:_MOST_NAMED]

    def ready(self) -> tuple[bool, str]:
        """Whether any server answers, and who or why not."""
        if any(server.up for server in self._servers.values()):
            return True, self.describe()
        return False, f"no model server answers: {self.describe()}" if self._servers else self._nobody()

    async def pick(self, model: str, path: str, credentials: HeaderList, without: Collection[str] = ()) -> Target:
        """The server for a model: of those that have it and were not just unreachable, the one with least to do.

        The ones named in ``without`` have been asked already, and come last.

        Asks for the lists anew before it says no: the model may have been added just now. Raises ``UpstreamRefused``
        where there is no server, ``NotFound`` where there are several and none has the model.
        """
        servers = self._servers.values()
        if not servers:
            raise UpstreamRefused(self._nobody())
        if not (found := candidates(servers, model, path)):
            await self._readings.read_all(eligible(servers, path), monotonic(), credentials, _LIST_SECONDS)
            found = candidates(servers, model, path)
        if not found:
            raise no_such_model(model)
        return self._idlest([server for server in found if server.name not in without] or found)

    def has_other(self, model: str, path: str, without: Collection[str]) -> bool:
        """Whether ``pick`` would give a server that is not among these."""
        return any(server.name not in without for server in candidates(self._servers.values(), model, path))

    async def pick_for_path(
        self, model: str, path: str, credentials: HeaderList, without: Collection[str] = ()
    ) -> Target:
        """The same for a path that is passed through, where a name may be one that is to be made.

        On paths that are one kind's own, a name that none has goes to the first server of that kind.
        """
        try:
            return await self.pick(model, path, credentials, without)
        except NotFound:
            found = eligible(self._servers.values(), path)
            if any(server.target.kind.own_paths and path.startswith(server.target.kind.own_paths) for server in found):
                return self._idlest(found[:1])
            raise

    def identity(self, model: str, path: str) -> str | None:
        """What stands behind a model's name, from the last readings: the same text means the same model.

        Where several servers have the model and differ, all of them together are its identity. None where it cannot be
        told: no server has it, or one that has it does not say, or what it said may be wrong by now.
        """
        return self._identity(candidates(self._servers.values(), model, path), model, monotonic())

    def _identity(self, servers: list[Server], model: str, now: float) -> str | None:
        seconds = self._settings.identity_seconds
        identities: set[str] = set()
        for server in servers:
            identity = None if server.due(now, seconds) else server.identity(model)
            if identity is None:
                return None
            identities.add(identity)
        return together(identities) if identities else None

    async def identify(self, model: str, path: str, credentials: HeaderList) -> str | None:
        """``identity``, from readings that are young enough to rest a hit on: waits for new ones, but not for long."""
        self._wanted = True
        now, seconds = monotonic(), self._settings.identity_seconds
        servers = candidates(self._servers.values(), model, path)
        # as a rule nobody has to be waited for
        identity = self._identity(servers, model, now)
        if identity is not None:
            return identity
        for server in servers:
            if server.due(now, seconds):
                await self._wait_for(server, max(now - seconds, server.doubted_at), credentials)
        identity = self.identity(model, path)
        if identity is None and model:
            # it may have been added just now
            for server in eligible(self._servers.values(), path):
                if server.up and server.target.kind.tells:
                    await self._wait_for(server, now, credentials)
            identity = self.identity(model, path)
        return identity

    async def confirm(self, origin: AnswerOrigin, credentials: HeaderList) -> str | None:
        """The identity of the model that made an answer; None if it may be another one's than the key says.

        The server is read again for it, by a question begun after the answer's end, and no other identity may have been
        read since the key was made. What comes back may be more precise than what the key was made of.
        """
        server = self._places[origin.target.name]
        if not await self._readings.read(server, self._since(server, origin), credentials):
            return None
        now = self.identity(origin.model, origin.path)
        if now is None or server.changed_since(origin.model, origin.keyed_at):
            return None
        return now if now == origin.identity or more_precise(now, origin.identity) else None

    def confirmed(self, origin: AnswerOrigin) -> bool:
        """Whether ``confirm`` need ask nobody, and would agree."""
        server = self._places[origin.target.name]
        asked = server.read_at > self._since(server, origin)
        return asked and self.identity(origin.model, origin.path) == origin.identity

    def any_case(self, model: str, path: str) -> bool:
        """Whether a server that may get the request takes the names of JSON members in any case."""
        return any(server.target.kind.any_case for server in candidates(self._servers.values(), model, path))

    def resumes(self, model: str, path: str) -> bool:
        """Whether a server that may get the request keeps streams for clients that name them."""
        return any(server.target.kind.resumes for server in candidates(self._servers.values(), model, path))

    def doubt(self, target: Target) -> None:
        """Something has passed through to this server that may change its models: what was read before may be wrong."""
        server = self._places[target.name]
        server.doubted_at = monotonic()
        self._young_until = 0.0
        self._wake.set()

    def current_epoch(self) -> int:
        """``epoch``, or -1 where a hit needs a new reading first."""
        self._wanted = True
        return self.epoch if monotonic() < self._young_until else -1

    async def may_serve(self, model: str) -> bool:
        """Whether a server may know the model. Asks them anew before it says no: it may have been added just now."""
        servers = self._servers.values()
        if not any(server.may_serve(model) for server in servers):
            await self._readings.read_all(servers, monotonic(), [], _LIST_SECONDS)
        return not servers or any(server.may_serve(model) for server in servers)

    def takes(self, target: Target, credential: str) -> bool | None:
        """Whether a server has told what it is to this credential (a fingerprint); None where it tells everybody."""
        server = self._places[target.name]
        return credential == server.opened_by if server.locked else None

    async def show(self, targets: list[Target], credentials: HeaderList) -> None:
        """Asks those of the servers that tell nothing to everybody what they are, with a caller's credentials."""
        servers = [server for target in targets if (server := self._places[target.name]).locked]
        await self._readings.read_all(servers, monotonic(), credentials, _LIST_SECONDS)

    def targets_for(self, path: str) -> list[Target]:
        """The servers that a path without a model's name is for."""
        return [server.target for server in eligible(self._servers.values(), path)]

    def with_model(self, model: str, path: str) -> list[Target]:
        """The servers for a model by what is known of them, [] where none has it."""
        return [server.target for server in candidates(self._servers.values(), model, path)]

    def listed(self, target: Target) -> tuple[Document, ...]:
        """The models that a server listed when it was last read, in OpenAI's shape."""
        return self._places[target.name].reading.models

    async def models(self, credentials: HeaderList) -> Document:
        """The list of all models in OpenAI's shape, read anew where a server answers; of two with the same id the first
        server's counts."""
        servers = self._servers.values()
        await self._readings.read_all(servers, monotonic(), credentials, _LIST_SECONDS)
        listed: dict[str, Document] = {}
        for server in servers:
            for model in server.reading.models:
                listed.setdefault(model["id"], model)
        return {"object": "list", "data": list(listed.values())}

    async def send(self, target: Target, call: Call, *, passed: bool = False) -> Reply:
        """One call. ``passed``: its answer comes down as it is, and may pause for as long as the caller waits.

        Raises ``UpstreamRefused``, ``UpstreamBroke``, ``UpstreamSlow``.
        """
        limits = replace(self._limits, idle=None) if passed else self._limits
        server = self._servers[target.name]
        server.begun()
        try:
            reply = await send(self._client, target, call, limits, server.ended)
        except UpstreamError as error:
            server.failed(error.message)
            if isinstance(error, UpstreamRefused) and server.refused(monotonic()):
                # from now on it is asked often, so that its return is noticed
                self._wake.set()
            raise
        if reply.fresh:
            server.connected_at = monotonic()
        if server.answered():
            self._wake.set()
        return reply if passed else decoded(reply)

    def lacks(self, target: Target, endpoint: str) -> bool:
        """Whether a server was seen not to have an endpoint, a name in ``wire.endpoints``."""
        return self._servers[target.name].lacks(endpoint, monotonic())

    def lacking(self, target: Target, endpoint: str) -> None:
        """Notes that a server does not have an endpoint."""
        self._servers[target.name].lacking(endpoint, monotonic())

    def _nobody(self) -> str:
        asked = ", ".join(f"{kind} at {url}" for kind, url in self._usual.items())
        return f"No model server was found ({asked}). Start one, or name yours in LLMPROXY_UPSTREAM."

    def _adopt(self) -> bool:
        """Counts in the model servers that were found in the usual places. False if there are none."""
        found = {name: server for name, server in self._places.items() if server.serves_models}
        self._servers = found | {name: server for name, server in self._servers.items() if name not in found}
        return bool(found)

    async def _keep(self) -> None:
        idle_since = monotonic()
        while True:
            await self._save()
            seconds = self._settings.identity_seconds
            well = bool(self._servers) and all(server.up for server in self._servers.values())
            with suppress(TimeoutError):
                # half of it, so that a hit in the middle of many finds a reading that is young enough
                async with asyncio.timeout(seconds / 2 if well else min(_RETRY_SECONDS, seconds)):
                    await self._wake.wait()
            woken = self._wake.is_set()
            self._wake.clear()
            if self._wanted or woken or self.in_flight:
                self._wanted, idle_since = False, monotonic()
                await self._refresh()
            elif not well:
                await self._refresh()
            elif monotonic() - idle_since > _IDLE_SECONDS:
                idle_since = monotonic()
                await asyncio.gather(*(self._readings.probe(server) for server in self._servers.values()))
            await asyncio.sleep(_DEBOUNCE_SECONDS)

    async def _refresh(self) -> None:
        if self._settings.upstream or any(server.up for server in self._servers.values()):
            # who asks for a key is read when somebody comes with one
            servers = [server for server in self._servers.values() if not (server.locked and server.up)]
            await self._readings.read_all(servers, monotonic(), [])
        else:
            await self._readings.read_all(self._places.values(), monotonic(), [])
            self._adopt()
        self._read(changed=False)

    async def _save(self) -> None:
        for server in self._servers.values():
            if server.unsaved and self._store is not None:
                server.unsaved = False
                await self._store.save(server.remembered())

    def _read(self, changed: bool) -> None:
        """After each reading."""
        if changed:
            self.epoch += 1
            self._wake.set()
        seconds = self._settings.identity_seconds
        self._young_until = min((server.fresh_until(seconds) for server in self._servers.values()), default=0.0)

    async def _wait_for(self, server: Server, since: float, credentials: HeaderList) -> None:
        """For a reading begun after ``since``, but not longer than a look-up may take; for one that hangs only once."""
        timeout = self._settings.identity_wait
        if server.attempt is not None:
            timeout = max(0.0, min(timeout, server.attempt.begun + timeout - monotonic()))
        await self._readings.read_all([server], since, credentials, timeout)

    def _since(self, server: Server, origin: AnswerOrigin) -> float:
        """When a reading must have begun that confirms an answer: after its end, or, where the name is all that is ever
        told, after the last connection to what may have been another process."""
        return origin.ended_at if server.target.kind.tells else server.connected_at

    def _idlest(self, servers: list[Server]) -> Target:
        now = monotonic()
        return min(servers, key=lambda server: (server.cooling(now), server.in_flight)).target


def no_such_model(name: str) -> NotFound:
    return NotFound(f"The model {name[:200]!r} does not exist.", code="model_not_found", param="model")


_OWN_PATHS = tuple(kind.own_paths for kind in KINDS if kind.own_paths)


def eligible(servers: Collection[Server], path: str) -> list[Server]:
    """The servers for a path: where one kind calls it its own, that kind's only, or who may be of that kind."""
    if not path.startswith(_OWN_PATHS):
        return list(servers)
    own = [server for server in servers if (start := server.target.kind.own_paths) and path.startswith(start)]
    return own or [server for server in servers if not server.heard_of] or list(servers)


def candidates(servers: Collection[Server], model: str, path: str) -> list[Server]:
    """The servers for a model, [] where none of them has it.

    One that lists its models gets no request for one that it does not list, unless it is the only one. What names no
    model goes to the first that answers.
    """
    found = eligible(servers, path)
    if len(found) <= 1:
        return found
    if model:
        if listing := [server for server in found if server.lists(model)]:
            return listing
        found = [server for server in found if not server.lists_models]
    return [server for server in found if server.up][:1] or found[:1]
