"""What model servers are and what they list: one question at a time to each, shared by all who wait for its answer."""

import asyncio
import logging
from asyncio import CancelledError
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import replace
from time import monotonic
from typing import Any

import orjson

from llmproxy.config.settings import Settings
from llmproxy.upstream.client import CallTimeouts, HttpClient, send
from llmproxy.upstream.decoding import decoded
from llmproxy.upstream.headers import forwarded
from llmproxy.upstream.kinds import GENERIC, KINDS
from llmproxy.upstream.model_server import Attempt, Server
from llmproxy.upstream.target import Call, Identities, Kind, ServerInfo, Target
from llmproxy.wire.errors import UpstreamBroke, UpstreamError, UpstreamLoading
from llmproxy.wire.headers import HeaderList, credentials, fingerprint

_LIMITS = CallTimeouts(connect=2.0, first_byte=5.0, idle=5.0, total=10.0)
_LONGEST_DOCUMENT = 16 * 1024 * 1024
_TROUBLED = frozenset({500, 502, 504})
_LIST = "/v1/models"
_NOT_THERE = frozenset({404, 405, 410})


class KeyNeeded(Exception):
    """The server says what it is only to those who show a key that it knows."""


class Probe:
    """Asks one server after the other; knows nothing of them itself."""

    def __init__(self, client: HttpClient, settings: Settings) -> None:
        self._client = client
        self._headers = [*forwarded([], settings), (b"accept", b"application/json")]
        self._has_key = settings.upstream_api_key is not None

    async def read(self, target: Target, previous: Identities, credentials: HeaderList) -> tuple[Kind, ServerInfo]:
        """The first kind that the server turns out to be, and what it says. ``previous`` is what it said before.

        ``credentials`` are shown to it. Raises ``UpstreamError``, ``KeyNeeded``.
        """
        refused = False
        list_status = 200

        async def fetch(path: str) -> Any:
            nonlocal refused, list_status
            status, document = await self._fetch(target, path, credentials)
            list_status = status if path == _LIST else list_status
            # a page that nobody gets (403) tells nothing, but for the one page that every server has
            refused |= status == 401 or (status == 403 and path == _LIST)
            return document

        asks_for_key = not self._has_key and target.authorization is None
        try:
            # who it was the last time is asked first: mostly it still is
            for kind in sorted(KINDS, key=lambda kind: kind is not target.kind or kind is GENERIC):
                reading = await kind.read(fetch, previous)
                if refused and asks_for_key:
                    raise KeyNeeded(f"The server at {target.name} asks for a key.")
                if reading is not None:
                    # whatever else it is, it is known by its own pages
                    return kind, replace(reading, warning=_oddity(target, list_status)) if kind is GENERIC else reading
        except orjson.JSONEncodeError as error:
            raise UpstreamBroke(f"What the server at {target.name} says of itself is nested too deeply.") from error
        raise UpstreamBroke(f"The server at {target.name} is of no known kind.")

    async def probe(self, target: Target) -> None:
        """Asks for the list of models only: whether it is there. Raises ``UpstreamError``."""
        await self._fetch(target, _LIST, [])

    async def _fetch(self, target: Target, path: str, credentials: HeaderList) -> tuple[int, Any]:
        """The status, and the JSON of a 200 answer."""
        headers = [*self._headers, *credentials]
        reply = decoded(await send(self._client, target, Call("GET", path.encode(), headers), _LIMITS))
        try:
            if reply.status == 503:
                raise UpstreamLoading(f"The model server at {target.name} is still loading its model.")
            if reply.status in _TROUBLED:
                raise UpstreamBroke(f"The model server at {target.name} answers {path} with {reply.status}.")
            # read in any case: it leaves the connection usable
            body = await reply.read(_LONGEST_DOCUMENT)
            return reply.status, orjson.loads(body) if reply.status == 200 else None
        except orjson.JSONDecodeError:
            return reply.status, None
        finally:
            await reply.aclose()


def _oddity(target: Target, status: int) -> str:
    """What a list of models that answers with ``status`` says of the base URL: "" for nothing."""
    if status not in _NOT_THERE:
        return ""
    path = f" (with its path {target.prefix.decode()})" if target.prefix else ""
    return f"{_LIST} answers {status} there: is the base URL right{path}?"


log = logging.getLogger(__name__)

#: Least time between the beginnings of two readings of a server: those who ask meanwhile share the next one. So many
#: times as long as a reading takes, but not longer than the second number, in seconds.
_GAP_FACTOR, _GAP_SECONDS = 3.0, 0.05


class Readings:
    """Reads servers. ``changed`` is called after each reading, with whether anything else than before was read."""

    def __init__(self, probe: Probe, changed: Callable[[bool], None]) -> None:
        self._probe = probe
        self._changed = changed
        self._tasks: set[asyncio.Task[bool]] = set()

    async def close(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def read(self, server: Server, since: float, credentials: HeaderList) -> bool:
        """True once there is a reading that was begun after ``since``, false if the server does not tell.

        ``credentials`` are shown to a server that asks for some, and to no other; they are forgotten with the reading.
        Who is cancelled leaves the reading to the others.
        """
        while server.read_at <= since:
            attempt = server.attempt or self._begin(server, credentials if server.locked else [])
            done = await asyncio.shield(attempt.task)
            tried_mine = not server.locked or attempt.credentials == credentials
            if not done and attempt.begun > since and tried_mine:
                return False
        return True

    async def read_all(
        self, servers: Iterable[Server], since: float, credentials: HeaderList, timeout: float | None = None
    ) -> None:
        """Waits for readings begun after ``since`` for so many seconds, or until all have answered or failed."""
        with suppress(TimeoutError):
            async with asyncio.timeout(timeout):
                await asyncio.gather(*(self.read(server, since, credentials) for server in servers))

    async def probe(self, server: Server) -> None:
        """Whether it is there, without a question that would keep a model awake."""
        try:
            await self._probe.probe(server.target)
        except UpstreamError as error:
            self._silent(server, error)

    def _begin(self, server: Server, credentials: HeaderList) -> Attempt:
        attempt = server.attempt = Attempt(credentials)
        attempt.task = asyncio.get_running_loop().create_task(self._run(server, attempt), name="upstream reading")
        self._tasks.add(attempt.task)
        attempt.task.add_done_callback(self._tasks.discard)
        return attempt

    async def _run(self, server: Server, attempt: Attempt) -> bool:
        try:
            gap = _GAP_SECONDS if server.latency is None else min(_GAP_FACTOR * server.latency, _GAP_SECONDS)
            if (wait := server.tried_at + gap - monotonic()) > 0:
                await asyncio.sleep(wait)
            attempt.begun = server.tried_at = monotonic()
            return await self._read(server, attempt)
        except CancelledError:
            raise
        except Exception:  # a defect of ours, or a server beyond belief: it is one that does not tell
            log.exception("what the model server at %s says of itself cannot be read", server.name)
            return False
        finally:
            server.attempt = None

    async def _read(self, server: Server, attempt: Attempt) -> bool:
        try:
            kind, reading = await self._probe.read(server.target, server.previous, attempt.credentials)
        except UpstreamError as error:
            self._silent(server, error)
            return False
        except KeyNeeded as error:
            server.locked = True
            server.answered()
            server.failed(str(error))
            self._changed(False)
            return False
        was_silent = not server.up and server.health.failed_at is not None
        server.latency = monotonic() - attempt.begun
        server.locked = bool(attempt.credentials)
        server.opened_by = fingerprint(credentials(attempt.credentials)) if server.locked else ""
        self._changed(server.learn(kind, reading, attempt.begun))
        if was_silent and server.serves_models:
            log.info("the model server at %s answers: %s", server.name, kind.name)
        return True

    def _silent(self, server: Server, error: UpstreamError) -> None:
        server.failed(error.message)
        if server.silent():
            log.warning("the model server at %s does not answer any more: %s", server.name, error)
        self._changed(False)
