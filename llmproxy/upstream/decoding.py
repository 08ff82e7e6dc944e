"""A reply whose content coding is undone: some gateways compress whatever was asked for."""

import asyncio
from collections.abc import AsyncIterator

from llmproxy.upstream.target import Reply
from llmproxy.wire.content_coding import Decoder, NotCoded, UnknownCoding, decoder
from llmproxy.wire.errors import UpstreamBroke
from llmproxy.wire.headers import HeaderList

_FRAMING = frozenset({b"content-encoding", b"content-length"})
#: other calls get their turn after so many decoded bytes
_TURN_BYTES = 1024 * 1024


def decoded(reply: Reply) -> Reply:
    """``reply`` itself where it has no coding, or one that is not known here: that one's header stays."""
    try:
        found = decoder(reply.headers)
    except UnknownCoding:
        return reply
    if found is not None:
        return _Decoded(reply, found)
    # "identity" is a coding that is none
    reply.headers = [header for header in reply.headers if header[0] != b"content-encoding"]
    return reply


class _Decoded:
    """The ``Reply`` without its coding. A small one may become large: it is read a bounded piece at a time."""

    def __init__(self, reply: Reply, decoder: Decoder) -> None:
        self.status = reply.status
        self.headers: HeaderList = [header for header in reply.headers if header[0] not in _FRAMING]
        self.fresh = reply.fresh
        self.delimited = reply.delimited
        self._reply = reply
        self._decoder = decoder
        self._pieces = self._decode()

    def chunks(self) -> AsyncIterator[bytes]:
        return self._pieces

    async def read(self, limit: int) -> bytes:
        pieces: list[bytes] = []
        size = 0
        async for piece in self._pieces:
            pieces.append(piece)
            size += len(piece)
            if size >= limit:
                break
        return b"".join(pieces)[:limit]

    async def aclose(self) -> None:
        await self._reply.aclose()

    async def _decode(self) -> AsyncIterator[bytes]:
        turn = 0
        try:
            async for chunk in self._reply.chunks():
                for piece in self._decoder.decode(chunk):
                    yield piece
                    turn += len(piece)
                    if turn > _TURN_BYTES:
                        turn = 0
                        await asyncio.sleep(0)
            self._decoder.finish()
        except NotCoded as error:
            raise UpstreamBroke(f"The upstream's answer is not what its Content-Encoding says: {error}.") from error
