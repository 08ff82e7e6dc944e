"""All model servers: which one serves a model, what stands behind the model's name, and how they fare."""

import asyncio
import logging
from collections.abc import Iterable, Mapping
from contextlib import suppress
from operator import attrgetter
from time import monotonic

from llmproxy.config.settings import Settings
from llmproxy.upstream.identities import IdentityStore
from llmproxy.upstream.identity import digest
from llmproxy.upstream.kinds import GENERIC
from llmproxy.upstream.send import Limits, send
from llmproxy.upstream.server import Health, Server
from llmproxy.upstream.survey import Survey
from llmproxy.upstream.target import Call, Document, Reply, Target
from llmproxy.upstream.transport import AiohttpTransport
from llmproxy.wire.errors import NotFound, UpstreamError, UpstreamRefused

log = logging.getLogger(__name__)

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
#: how often a server that does not answer is asked again
_RETRY_SECONDS = 2.0
#: least time between two rounds of readings
_DEBOUNCE_SECONDS = 0.5


class Upstreams:
    """Made inside the running loop, opened and closed with the program. In between, a task keeps the readings fresh."""

    def __init__(
        self, settings: Settings, store: IdentityStore | None = None, usual: Mapping[str, str] = USUAL
    ) -> None:
        self._settings = settings
        self._store = store
        self._usual = usual
        self._limits = Limits.of(settings)
        self._transport = AiohttpTransport()
        self._survey = Survey(self._transport, settings)
        #: where a server may be; ``_servers`` are those that count
        self._places: dict[str, Server] = {}
        self._servers: dict[str, Server] = {}
        self._wake = asyncio.Event()
        self._keeper: asyncio.Task[None] | None = None
        #: grows whenever anything else than before stands behind a name, or a server is of another kind
        self.epoch = 0

    async def open(self) -> None:
        """Finds the servers; waits for their answers for a moment only. Never fails for a server's sake."""
        seen = await self._store.load() if self._store else {}
        for url in self._settings.upstream or self._usual.values():
            target = Target.at(url, GENERIC)
            self._places[target.name] = Server(target, seen.get(target.name))
        await self._read_all(self._places.values(), _PROBE_SECONDS)
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
        self._wake.clear()
        self._keeper = asyncio.create_task(self._keep(), name="upstream readings")

    async def close(self) -> None:
        if self._keeper is not None:
            self._keeper.cancel()
            with suppress(asyncio.CancelledError):
                await self._keeper
            await self._save()
        await self._transport.aclose()

    @property
    def targets(self) -> tuple[Target, ...]:
        return tuple(server.target for server in self._servers.values())

    def describe(self) -> str:
        """Who is there, in a few words, for the start-up line."""
        return ", ".join(
            f"{server.target.kind.name} at {server.name}" if server.up else f"{server.name} (no answer yet)"
            for server in self._servers.values()
        )

    def up(self) -> dict[str, bool]:
        """Whether each server answered when it was last asked, by name."""
        return {name: server.up for name, server in self._servers.items()}

    def kind(self, name: str) -> str:
        """The kind of the server with this name; "" for one that is not known."""
        server = self._servers.get(name)
        return server.target.kind.name if server is not None else ""

    def health(self) -> list[Health]:
        """How each server fares, by what is known without asking it."""
        return [server.health for server in self._servers.values()]

    @property
    def in_flight(self) -> int:
        """Calls that are upstream now."""
        return sum(server.in_flight for server in self._servers.values())

    @property
    def slots(self) -> int | None:
        """How many calls the servers that are there work on at once, None where none of them tells."""
        told = [server.reading.slots for server in self._servers.values() if server.up and server.reading.slots]
        return sum(told) if told else None

    @property
    def first_model(self) -> str:
        """The first model that a server lists and that makes text, of those that answer if any does; "" where none is
        known."""
        servers = sorted(self._servers.values(), key=lambda server: not server.up)
        return next((name for server in servers for name in server.text_models), "")

    def ready(self) -> tuple[bool, str]:
        """Whether any server answers, and who or why not."""
        if any(server.up for server in self._servers.values()):
            return True, self.describe()
        return False, f"no model server answers: {self.describe()}" if self._servers else self._nobody()

    def pick(self, model: str) -> Target:
        """The server for a model: of those that list it and were not just unreachable, the one with least to do.

        A name that none lists goes to the first server that answers. Raises ``UpstreamRefused`` where there is none.
        """
        candidates = self._candidates(model)
        if not candidates:
            raise UpstreamRefused(self._nobody())
        now = monotonic()
        return min(candidates, key=lambda server: (server.cooling(now), server.in_flight)).target

    def identity(self, model: str) -> str:
        """What stands behind a model's name now, from the last readings: the same text means the same model.

        Where several servers list the model and differ, all of them together are its identity.
        """
        identities = {server.identity(model) for server in self._candidates(model)}
        if len(identities) == 1:
            return identities.pop()
        return digest(sorted(identities)) if identities else model

    async def confirm(self, target: Target, model: str, identity: str) -> bool:
        """Whether an answer that ``target`` just gave is one by the model that had this identity before the call.

        A server that is restarted with another model loses its connections. So where a connection has been opened since
        the last reading, it reads again. Not confirmed if that fails. Ask once the answer is complete.
        """
        server = self._servers[target.name]
        return await self._read(server, server.connected_at) and self.identity(model) == identity

    async def may_serve(self, model: str) -> bool:
        """Whether a server may know the model. Asks them anew before it says no: it may have been added just now."""
        servers = self._servers.values()
        if not any(server.may_serve(model) for server in servers):
            await self._read_all(servers, _LIST_SECONDS)
        return not servers or any(server.may_serve(model) for server in servers)

    async def send(self, target: Target, call: Call) -> Reply:
        """One call. Raises ``UpstreamRefused``, ``UpstreamBroke``, ``UpstreamSlow``."""
        server = self._servers[target.name]
        server.begun()
        try:
            reply = await send(self._transport, target, call, self._limits, server.ended)
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
        return reply

    def lacks(self, target: Target, endpoint: str) -> bool:
        """Whether a server was seen not to have an endpoint, a name in ``wire.endpoints``."""
        return self._servers[target.name].lacks(endpoint, monotonic())

    def lacking(self, target: Target, endpoint: str) -> None:
        """Notes that a server does not have an endpoint."""
        self._servers[target.name].lacking(endpoint, monotonic())

    async def models(self) -> Document:
        """The list of all models in OpenAI's shape. Of two with the same id the first server's counts."""
        servers = self._servers.values()
        await self._read_all(servers, _LIST_SECONDS)
        listed: dict[str, Document] = {}
        for server in servers:
            for model in server.reading.models:
                listed.setdefault(model["id"], model)
        return {"object": "list", "data": list(listed.values())}

    async def model(self, name: str) -> Document:
        """One entry of the list. Raises ``NotFound``."""
        names = {name} | {server.target.kind.canonical(name) for server in self._servers.values()}
        for model in (await self.models())["data"]:
            if model["id"] in names:
                found: Document = model
                return found
        raise NotFound(f"The model {name[:200]!r} does not exist.", code="model_not_found", param="model")

    def _candidates(self, model: str) -> list[Server]:
        servers = self._servers.values()
        listing = [server for server in servers if server.lists(model)]
        # a name that none lists goes to the first that answers: llama.cpp takes any name
        return listing or [server for server in servers if server.up][:1] or list(servers)[:1]

    def _nobody(self) -> str:
        asked = ", ".join(f"{kind} at {url}" for kind, url in self._usual.items())
        return f"No model server was found ({asked}). Start one, or name yours in LLMPROXY_UPSTREAM."

    def _adopt(self) -> bool:
        """Counts in the model servers that were found in the usual places. False if there are none."""
        found = {name: server for name, server in self._places.items() if server.serves_models}
        self._servers = found | {name: server for name, server in self._servers.items() if name not in found}
        return bool(found)

    async def _keep(self) -> None:
        while True:
            await self._save()
            well = bool(self._servers) and all(server.up for server in self._servers.values())
            seconds = self._settings.identity_seconds
            with suppress(TimeoutError):
                async with asyncio.timeout(seconds if well else min(_RETRY_SECONDS, seconds)):
                    await self._wake.wait()
            self._wake.clear()
            if self._settings.upstream or any(server.up for server in self._servers.values()):
                await self._read_all(self._servers.values())
            else:
                await self._read_all(self._places.values())
                self._adopt()
            await asyncio.sleep(_DEBOUNCE_SECONDS)

    async def _save(self) -> None:
        for server in self._servers.values():
            if server.unsaved and self._store is not None:
                server.unsaved = False
                await self._store.save(server.remembered())

    async def _read_all(self, servers: Iterable[Server], patience: float | None = None) -> None:
        now = monotonic()
        with suppress(TimeoutError):
            async with asyncio.timeout(patience):
                await asyncio.gather(*(self._read(server, now) for server in servers))

    async def _read(self, server: Server, since: float) -> bool:
        """True once there is a reading that was begun after ``since``, false if the server does not answer."""
        async with server.lock:
            if server.read_at > since:
                return True
            read_at = monotonic()
            try:
                kind, reading = await self._survey.read(server.target)
            except UpstreamError as error:
                server.failed(error.message)
                if server.silent():
                    log.warning("the model server at %s does not answer any more: %s", server.name, error)
                return False
            server.latency = monotonic() - read_at
            if server.learn(kind, reading, read_at):
                self.epoch += 1
                self._wake.set()
            return True
