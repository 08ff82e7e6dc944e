"""A server on a real socket that says exactly what a test tells it to, byte by byte, and notices everything."""

import asyncio
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import orjson

from tests.timeouts import WAIT_SECONDS

Handler = Callable[["Visit"], Awaitable[None]]


@dataclass
class Visit:
    """One request, and the means to answer it."""

    line: bytes
    headers: list[tuple[bytes, bytes]]
    body: bytes
    #: which connection of the server it came on, counted from 1
    connection: int
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    @property
    def path(self) -> str:
        return self.line.split()[1].decode()

    def header(self, name: bytes) -> list[bytes]:
        return [value for key, value in self.headers if key.lower() == name]

    async def write(self, *pieces: bytes) -> None:
        for piece in pieces:
            self.writer.write(piece)
            await self.writer.drain()

    async def reply(self, body: bytes, status: str = "200 OK", headers: bytes = b"") -> None:
        length = b"content-length: %d\r\n" % len(body)
        await self.write(b"HTTP/1.1 " + status.encode() + b"\r\n" + headers + length + b"\r\n" + body)

    async def json(self, document: Any, status: str = "200 OK") -> None:
        await self.reply(orjson.dumps(document), status, b"content-type: application/json\r\n")

    def close(self) -> None:
        """Ends the connection."""
        self.writer.close()

    async def left(self) -> None:
        """Returns once the client has closed its end. Raises ``TimeoutError``."""
        async with asyncio.timeout(WAIT_SECONDS):
            while await self.reader.read(65536):
                pass


@dataclass
class Scripted:
    """A server. ``handler`` may be exchanged at any time; ``visits`` are the requests so far."""

    handler: Handler
    port: int = 0
    tls: ssl.SSLContext | None = None
    visits: list[Visit] = field(default_factory=list)
    connections: int = 0
    _arrival: asyncio.Condition = field(default_factory=asyncio.Condition)
    _writers: set[asyncio.StreamWriter] = field(default_factory=set)
    _server: asyncio.Server | None = None

    @property
    def url(self) -> str:
        return f"http{'s' if self.tls else ''}://127.0.0.1:{self.port}"

    async def visited(self, path: str, times: int = 1) -> Visit:
        """The last of so many requests to a path, once it has come. Raises ``TimeoutError``."""

        def seen() -> list[Visit]:
            return [visit for visit in self.visits if visit.path == path]

        async with asyncio.timeout(WAIT_SECONDS), self._arrival:
            await self._arrival.wait_for(lambda: len(seen()) >= times)
        return seen()[times - 1]

    async def start(self) -> None:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self.port, backlog=512, ssl=self.tls)
        self.port = self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        """Refuses connections from now on and closes those there are."""
        assert self._server is not None
        self._server.close()
        for writer in list(self._writers):
            writer.close()
        await self._server.wait_closed()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        number = self.connections
        self._writers.add(writer)
        try:
            while visit := await _request(reader, writer, number):
                async with self._arrival:
                    self.visits.append(visit)
                    self._arrival.notify_all()
                await self.handler(visit)
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            self._writers.discard(writer)
            writer.close()


async def _request(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, connection: int) -> Visit | None:
    try:
        head = await reader.readuntil(b"\r\n\r\n")
    except asyncio.IncompleteReadError:
        return None
    line, *rest = head[:-4].split(b"\r\n")
    headers = [(name, value.strip()) for name, _, value in (row.partition(b":") for row in rest)]
    lengths = {name.lower(): value for name, value in headers}
    body = b""
    if b"content-length" in lengths:
        body = await reader.readexactly(int(lengths[b"content-length"]))
    elif lengths.get(b"transfer-encoding") == b"chunked":
        while size := int(await reader.readline(), 16):
            body += (await reader.readexactly(size + 2))[:-2]
        await reader.readline()
    return Visit(line, headers, body, connection, reader, writer)


@asynccontextmanager
async def scripted(handler: Handler, tls: ssl.SSLContext | None = None) -> AsyncIterator[Scripted]:
    server = Scripted(handler, tls=tls)
    await server.start()
    try:
        yield server
    finally:
        await server.stop()


def chunk(data: bytes) -> bytes:
    """A chunk of the chunked transfer coding."""
    return b"%x\r\n%b\r\n" % (len(data), data)


CHUNKED = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"


async def nothing(visit: Visit) -> None:
    """Never answers; waits until the client is gone."""
    await visit.left()
