"""Asking a model server what it is and what it lists."""

from typing import Any

import httpx
import orjson

from llmproxy.config.settings import Settings
from llmproxy.upstream.headers import forwarded
from llmproxy.upstream.kinds import KINDS
from llmproxy.upstream.send import Limits, send
from llmproxy.upstream.target import Call, Kind, Reading, Target
from llmproxy.wire.errors import UpstreamBroke, UpstreamLoading

_LIMITS = Limits(connect=2.0, first_byte=5.0, idle=5.0, total=10.0)
_LONGEST_DOCUMENT = 16 * 1024 * 1024
_TROUBLED = frozenset({500, 502, 504})


class Survey:
    """Asks one server after the other; knows nothing of them itself."""

    def __init__(self, transport: httpx.AsyncBaseTransport, settings: Settings) -> None:
        self._transport = transport
        self._headers = [*forwarded([], settings), (b"accept", b"application/json")]

    async def read(self, target: Target) -> tuple[Kind, Reading]:
        """The first kind that the server turns out to be, and what it says. Raises ``UpstreamError``."""

        async def fetch(path: str) -> Any:
            return await self._fetch(target, path)

        try:
            for kind in KINDS:
                reading = await kind.read(fetch)
                if reading is not None:
                    return kind, reading
        except orjson.JSONEncodeError as error:
            raise UpstreamBroke(f"What the server at {target.name} says of itself is nested too deeply.") from error
        raise UpstreamBroke(f"The server at {target.name} is of no known kind.")

    async def _fetch(self, target: Target, path: str) -> Any:
        reply = await send(self._transport, target, Call("GET", path.encode(), self._headers), _LIMITS)
        try:
            if reply.status == 503:
                raise UpstreamLoading(f"The model server at {target.name} is still loading its model.")
            if reply.status in _TROUBLED:
                raise UpstreamBroke(f"The model server at {target.name} answers {path} with {reply.status}.")
            # read in any case: it leaves the connection usable
            body = await reply.read(_LONGEST_DOCUMENT)
            return orjson.loads(body) if reply.status == 200 else None
        except orjson.JSONDecodeError:
            return None
        finally:
            await reply.aclose()
