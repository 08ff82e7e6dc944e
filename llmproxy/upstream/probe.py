"""Asking a model server what it is and what it lists."""

from typing import Any

import httpx
import orjson

from llmproxy.config.settings import Settings
from llmproxy.upstream.decoding import decoded
from llmproxy.upstream.headers import forwarded
from llmproxy.upstream.kinds import GENERIC, KINDS
from llmproxy.upstream.send import CallTimeouts, send
from llmproxy.upstream.target import Call, HeaderList, Identities, Kind, ServerInfo, Target
from llmproxy.wire.errors import UpstreamBroke, UpstreamLoading

_LIMITS = CallTimeouts(connect=2.0, first_byte=5.0, idle=5.0, total=10.0)
_LONGEST_DOCUMENT = 16 * 1024 * 1024
_TROUBLED = frozenset({500, 502, 504})
_LIST = "/v1/models"


class KeyNeeded(Exception):
    """The server says what it is only to those who show a key that it knows."""


class Probe:
    """Asks one server after the other; knows nothing of them itself."""

    def __init__(self, transport: httpx.AsyncBaseTransport, settings: Settings) -> None:
        self._transport = transport
        self._headers = [*forwarded([], settings), (b"accept", b"application/json")]
        self._has_key = settings.upstream_api_key is not None

    async def read(self, target: Target, known: Identities, credentials: HeaderList) -> tuple[Kind, ServerInfo]:
        """The first kind that the server turns out to be, and what it says. ``known`` is what it said before.

        ``credentials`` are shown to it. Raises ``UpstreamError``, ``KeyNeeded``.
        """
        refused = False

        async def fetch(path: str) -> Any:
            nonlocal refused
            status, document = await self._fetch(target, path, credentials)
            # a page that nobody gets (403) tells nothing, but for the one page that every server has
            refused |= status == 401 or (status == 403 and path == _LIST)
            return document

        asks_for_key = not self._has_key and target.authorization is None
        try:
            # who it was the last time is asked first: mostly it still is
            for kind in sorted(KINDS, key=lambda kind: kind is not target.kind or kind is GENERIC):
                reading = await kind.read(fetch, known)
                if refused and asks_for_key:
                    raise KeyNeeded(f"The server at {target.name} asks for a key.")
                if reading is not None:
                    return kind, reading
        except orjson.JSONEncodeError as error:
            raise UpstreamBroke(f"What the server at {target.name} says of itself is nested too deeply.") from error
        raise UpstreamBroke(f"The server at {target.name} is of no known kind.")

    async def probe(self, target: Target) -> None:
        """Asks for the list of models only: whether it is there. Raises ``UpstreamError``."""
        await self._fetch(target, _LIST, [])

    async def _fetch(self, target: Target, path: str, credentials: HeaderList) -> tuple[int, Any]:
        """The status, and the JSON of a 200 answer."""
        headers = [*self._headers, *credentials]
        reply = decoded(await send(self._transport, target, Call("GET", path.encode(), headers), _LIMITS))
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
