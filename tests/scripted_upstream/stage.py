"""The server's end of one connection: requests read whole, answers written byte by byte as a play wants them."""

import asyncio
import socket
import struct
from collections.abc import Iterable, Iterator

from tests.scripted_upstream.journal import Visit

Headers = Iterable[tuple[str, str]]


class Stage:
    """One connection. ``broken`` says that it must not be used for another request."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, number: int) -> None:
        self.reader = reader
        self.writer = writer
        self.number = number
        self.broken = False
        #: what every head of this answer has beside its own headers
        self.further: Headers = ()
        self._peeked = b""

    async def request(self, numbers: Iterator[int]) -> Visit | None:
        """The next request, None when the client closed. Its body is hashed and counted, not kept whole.

        It has its number when its head is there, so that numbers grow in the order of the requests.
        """
        try:
            head = self._peeked + await self.reader.readuntil(b"\r\n\r\n")
        except (asyncio.IncompleteReadError, ConnectionError):
            return None
        self._peeked = b""
        first, *lines = head[:-4].split(b"\r\n")
        method, target, _ = first.split(b" ")
        pairs = [line.split(b":", 1) for line in lines]
        headers = [(name, value.strip()) for name, value in pairs]
        visit = Visit(next(numbers), method.decode(), target, headers, self.number)
        if visit.header("expect") == "100-continue":
            await self.send(b"HTTP/1.1 100 Continue\r\n\r\n")
        if (visit.header("transfer-encoding") or "").lower() == "chunked":
            while size := int((await self.reader.readline()).split(b";")[0], 16):
                await self._take(visit, size)
                await self.reader.readexactly(2)
            await self.reader.readline()
        else:
            await self._take(visit, int(visit.header("content-length") or 0))
        return visit

    async def _take(self, visit: Visit, size: int) -> None:
        while size:
            data = await self.reader.read(min(size, 256 * 1024))
            if not data:
                raise ConnectionResetError("the client left inside its request")
            visit.take(data)
            size -= len(data)

    async def gone(self) -> None:
        """Returns when the client has closed its end. A byte of a next request is kept for it."""
        while data := await self.reader.read(1):
            self._peeked += data

    async def send(self, data: bytes) -> None:
        self.writer.write(data)
        await self.writer.drain()

    async def head(self, status: int, headers: Headers) -> None:
        lines = [f"HTTP/1.1 {status} Scripted", *(f"{name}: {value}" for name, value in [*headers, *self.further])]
        await self.send("\r\n".join([*lines, "", ""]).encode("latin-1"))

    async def chunk(self, data: bytes) -> None:
        await self.send(b"%x\r\n%b\r\n" % (len(data), data))

    async def end(self) -> None:
        """The 0-chunk: a clean end."""
        await self.send(b"0\r\n\r\n")

    async def whole(self, status: int, content_type: str, body: bytes, headers: Headers = ()) -> None:
        """A complete answer with its content-length."""
        length = str(len(body))
        await self.head(status, [("content-type", content_type), ("content-length", length), *headers])
        await self.send(body)

    def close(self) -> None:
        """FIN: the answer ends here, whatever was promised."""
        self.broken = True
        self.writer.close()

    def reset(self) -> None:
        """RST."""
        self.broken = True
        connection: socket.socket = self.writer.get_extra_info("socket")
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.writer.transport.abort()
