"""A file's bytes on their way to the client, when one of the two ends fails."""

import asyncio
from collections.abc import AsyncGenerator
from pathlib import Path
from time import perf_counter
from typing import Any

import pytest
from starlette.types import Message

from llmproxy.api.file_model import new_id
from llmproxy.api.files import Download
from llmproxy.jobs.blob_stores import Folder
from llmproxy.jobs.model import File
from llmproxy.wire.errors import NotFound, Unavailable
from llmproxy.wire.exchange import EXCHANGE, Exchange

PIECE = b"x" * 1000


class Failing(Folder):
    """Fails after so many pieces; ``closed`` once nobody reads any more."""

    def __init__(self, folder: Path, pieces: int) -> None:
        super().__init__(folder)
        self._left = pieces
        self.closed = False

    async def read(self, name: str) -> AsyncGenerator[bytes]:
        try:
            for _ in range(self._left):
                yield PIECE
            raise Unavailable("The disk was pulled out.")
        finally:
            self.closed = True


class Client:
    """One who asks for the content of a file, and leaves after so many messages."""

    def __init__(self, leaves_after: int = 10**6) -> None:
        self.exchange = Exchange("req_1", "GET", "/", perf_counter(), 0.0)
        self.heard: list[Message] = []
        self._leaves_after = leaves_after
        self._gone = asyncio.Event()

    async def ask(self, blobs: Folder) -> None:
        file = File(new_id(), "", "user_data", "x", 10 * len(PIECE), "ab", 0.0)
        scope: dict[str, Any] = {"type": "http", "method": "GET", EXCHANGE: self.exchange}
        await Download(blobs, file)(scope, self._receive, self._send)

    async def _receive(self) -> Message:
        await self._gone.wait()
        return {"type": "http.disconnect"}

    async def _send(self, message: Message) -> None:
        self.heard.append(message)
        if len(self.heard) == self._leaves_after:
            self._gone.set()
        # what waits to be received is received
        for _ in range(3):
            await asyncio.sleep(0)

    @property
    def pieces(self) -> int:
        return sum(message.get("body") == PIECE for message in self.heard)

    @property
    def whole(self) -> bool:
        """Whether it was told that this was all."""
        return any(message["type"] == "http.response.body" and not message.get("more_body") for message in self.heard)


async def test_a_store_that_fails_before_anything_was_sent_is_an_error(tmp_path: Path) -> None:
    client, blobs = Client(), Failing(tmp_path, 0)
    with pytest.raises(Unavailable):
        await client.ask(blobs)
    assert client.heard == []
    assert blobs.closed


async def test_bytes_that_are_not_there_are_not_found(tmp_path: Path) -> None:
    client = Client()
    with pytest.raises(NotFound):
        await client.ask(Folder(tmp_path))
    assert client.heard == []


async def test_a_store_that_fails_midway_breaks_off(tmp_path: Path) -> None:
    client, blobs = Client(), Failing(tmp_path, 3)
    await client.ask(blobs)
    assert (client.pieces, client.whole) == (3, False)
    assert client.exchange.error == "The disk was pulled out."
    assert blobs.closed


async def test_a_client_that_left_is_sent_nothing_more(tmp_path: Path) -> None:
    client, blobs = Client(leaves_after=3), Failing(tmp_path, 10**6)
    await client.ask(blobs)
    assert (client.pieces, client.whole) == (2, False)
    assert client.exchange.status == 499
    assert blobs.closed
