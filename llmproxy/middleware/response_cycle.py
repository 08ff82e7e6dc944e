"""A request and its response on a connection: uvicorn's, with half as many writes.

uvicorn writes a head by itself and looks through each header with two patterns; a write is a call of the system, and it
wakes the client up.
"""

import asyncio
from collections.abc import Iterable
from typing import Any

from uvicorn.protocols.http.httptools_impl import STATUS_LINE, RequestResponseCycle

#: none of these can be in a head (RFC 9110 section 5.5); CR and LF are at the ends of lines only
_CONTROL = bytes({*range(0x20), 0x7F} - {0x09, 0x0A, 0x0D})
_BODILESS = frozenset({204, 304})
#: a larger piece of a body is not copied to be written together with what goes before it
_LARGEST_COPY = 64 * 1024


class ResponseCycle(RequestResponseCycle):
    """One request in work. The head of the response goes out with the first piece of its body if the application sends
    both within one turn of the event loop, else at the end of that turn."""

    #: what waits for the first piece of the body
    _head = b""

    async def send(self, message: Any) -> None:
        """The ``send`` of ASGI. Header names are in lower case."""
        if self.flow.write_paused and not self.disconnected:
            await self.flow.drain()
        if self.disconnected:
            return
        starts = message["type"] == "http.response.start"
        if self.response_complete or starts is self.response_started:
            raise RuntimeError(f"{message['type']} is out of turn")
        if starts:
            self._start(message["status"], message.get("headers", ()))
        else:
            self._continue(message.get("body", b""), message.get("more_body", False))

    def _start(self, status: int, headers: Iterable[tuple[bytes, bytes]]) -> None:
        self.response_started, self.waiting_for_100_continue = True, False
        self.chunked_encoding = self.scope["method"] != "HEAD" and status not in _BODILESS
        lines = [STATUS_LINE[status]]
        for name, value in (*self.default_headers, *headers):
            if name == b"content-length":
                self.expected_content_length, self.chunked_encoding = int(value), False
            elif name == b"connection" and b"close" in value.lower():
                self.keep_alive = False
                continue
            lines.append(b"%b: %b\r\n" % (name, value))
        if not self.keep_alive:
            lines.append(b"connection: close\r\n")
        if self.chunked_encoding:
            lines.append(b"transfer-encoding: chunked\r\n")
        head = b"".join(lines)
        if head.count(b"\n") != len(lines) or head.count(b"\r") != len(lines) or head.translate(None, _CONTROL) != head:
            raise RuntimeError("a header holds a control character")
        self._head = head + b"\r\n"
        asyncio.get_running_loop().call_soon(self._write_head)

    def _write_head(self) -> None:
        """The body has not begun yet."""
        head, self._head = self._head, b""
        if head and not self.transport.is_closing():
            self.transport.write(head)

    def _continue(self, body: bytes | memoryview, more: bool) -> None:
        if self.scope["method"] == "HEAD":
            self.expected_content_length, body = 0, b""
        elif not self.chunked_encoding:
            self.expected_content_length -= len(body)
            if self.expected_content_length < 0 or (self.expected_content_length and not more):
                raise RuntimeError("the body has another length than its head says")
        if len(body) > _LARGEST_COPY and not self.chunked_encoding:
            self._write_head()
            self.transport.write(body)
        elif data := self._framed(body, more):
            self.transport.write(data)
        if not more:
            self.response_complete = True
            self.message_event.set()
            if not self.keep_alive:
                self.transport.close()
            self.on_response()

    def _framed(self, body: bytes | memoryview, more: bool) -> bytes | memoryview:
        """A piece of the body as it is written, after the head if that still waits."""
        head, self._head = self._head, b""
        if not self.chunked_encoding:
            return head + body if head else body
        size = b"%x\r\n" % len(body) if body else b""
        end = b"\r\n" if body else b""
        return b"".join((head, size, body, end, b"" if more else b"0\r\n\r\n"))
