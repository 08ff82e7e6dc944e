"""A file's bytes on their way to the client."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing

from starlette.types import Receive, Scope, Send

from llmproxy.jobs.blobs import Blobs
from llmproxy.jobs.files.document import File
from llmproxy.proxy.endpoint import listening
from llmproxy.proxy.listen import Client, ClientDisconnected, StreamAborted
from llmproxy.wire.errors import NotFound, Unavailable
from llmproxy.wire.exchange import EXCHANGE

#: how long a client may take for one piece
_PATIENCE_SECONDS = 60.0


class Download:
    """An ASGI application. Raises ``NotFound`` where the bytes are gone, ``Unavailable``; both before anything is sent.

    A client that leaves, or stops reading, ends the reading too.
    """

    def __init__(self, blobs: Blobs, file: File) -> None:
        self._blobs = blobs
        self._file = file

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        with listening(receive, scope[EXCHANGE]) as client:
            async with aclosing(self._blobs.read(self._file.id)) as pieces:
                try:
                    first = await anext(pieces, b"")
                except FileNotFoundError:
                    raise NotFound(f"The content of {self._file.id} is not there any more.", param="id") from None
                client.watch(lambda: None)
                await send({"type": "http.response.start", "status": 200, "headers": self._headers()})
                if scope["method"] != "HEAD":
                    await _send(send, first)
                    await _send_all(send, pieces, client)
                await send({"type": "http.response.body", "body": b""})

    def _headers(self) -> list[tuple[bytes, bytes]]:
        return [(b"content-type", b"application/octet-stream"), (b"content-length", b"%d" % self._file.bytes)]


async def _send_all(send: Send, pieces: AsyncIterator[bytes], client: Client) -> None:
    try:
        async for piece in pieces:
            if client.disconnected:
                raise ClientDisconnected
            await _send(send, piece)
    except Unavailable as error:
        raise StreamAborted(error.message) from error


async def _send(send: Send, piece: bytes) -> None:
    try:
        async with asyncio.timeout(_PATIENCE_SECONDS):
            await send({"type": "http.response.body", "body": piece, "more_body": True})
    except TimeoutError:
        raise StreamAborted(f"The client read nothing for {_PATIENCE_SECONDS:g} s.") from None
