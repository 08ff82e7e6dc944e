#!/usr/bin/env python3
"""The barest relay of the same parts: uvicorn in front, aiohttp behind, nothing in between.

    python bench/relay.py UPSTREAM PORT

What a proxy made of these parts costs at the least: nothing is parsed, kept, counted or logged.
"""

import sys
from collections.abc import Awaitable, Callable, MutableMapping
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import uvicorn

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]

_HOP_BY_HOP = {b"connection", b"keep-alive", b"transfer-encoding", b"host", b"content-length"}


class Relay:
    """An ASGI application that sends each request on and the answer back, chunk by chunk."""

    def __init__(self, upstream: str) -> None:
        self._upstream = upstream
        self._client: aiohttp.ClientSession

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._lifespan(receive, send)
            return
        body, more = b"", True
        while more:
            message = await receive()
            body += message.get("body", b"")
            more = message.get("more_body", False)
        headers = [(k.decode(), v.decode()) for k, v in scope["headers"] if k not in _HOP_BY_HOP]
        async with self._client.request(
            scope["method"], self._upstream + scope["path"], data=body, headers=headers
        ) as r:
            kept = [(k.lower(), v) for k, v in r.raw_headers if k.lower() not in _HOP_BY_HOP]
            await send({"type": "http.response.start", "status": r.status, "headers": kept})
            async for chunk in r.content.iter_any():
                await send({"type": "http.response.body", "body": chunk, "more_body": True})
        await send({"type": "http.response.body", "body": b""})

    async def _lifespan(self, receive: Receive, send: Send) -> None:
        await receive()
        async with self._session():
            await send({"type": "lifespan.startup.complete"})
            await receive()
        await send({"type": "lifespan.shutdown.complete"})

    @asynccontextmanager
    async def _session(self):
        connector = aiohttp.TCPConnector(limit=0)
        async with aiohttp.ClientSession(connector=connector, auto_decompress=False) as self._client:
            yield


if __name__ == "__main__":
    uvicorn.run(Relay(sys.argv[1]), port=int(sys.argv[2]), log_level="warning", access_log=False)
