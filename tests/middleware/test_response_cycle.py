"""How a response is written: with as few writes as may be, and framed as its head says."""

import asyncio
import logging
from collections.abc import Callable
from typing import Any

import pytest
from uvicorn.protocols.http.flow_control import FlowControl

from llmproxy.middleware.response_cycle import ResponseCycle

Make = Callable[..., tuple[ResponseCycle, "Writes"]]


class Writes(asyncio.Transport):
    """A transport that notes each write."""

    def __init__(self) -> None:
        super().__init__()
        self.pieces: list[bytes] = []
        self.closed = False

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.pieces.append(bytes(data))

    def is_closing(self) -> bool:
        return self.closed

    def close(self) -> None:
        self.closed = True

    def resume_reading(self) -> None:
        pass


@pytest.fixture
def cycle() -> Make:
    def make(method: str = "GET", *, keep_alive: bool = True) -> tuple[ResponseCycle, Writes]:
        transport, log = Writes(), logging.getLogger(__name__)
        scope: Any = {"type": "http", "method": method}
        flow, event = FlowControl(transport), asyncio.Event()
        made = ResponseCycle(scope, transport, flow, log, log, False, [], event, False, keep_alive, lambda: None)
        return made, transport

    return make


def start(*headers: tuple[bytes, bytes], status: int = 200) -> dict[str, Any]:
    return {"type": "http.response.start", "status": status, "headers": list(headers)}


def body(data: bytes | memoryview, *, more: bool = False) -> dict[str, Any]:
    return {"type": "http.response.body", "body": data, "more_body": more}


async def test_head_and_body_are_one_write(cycle: Make) -> None:
    response, writes = cycle()
    await response.send(start((b"content-length", b"2")))
    await response.send(body(b"ok"))
    assert writes.pieces == [b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"]
    assert response.response_complete
    await asyncio.sleep(0)
    assert len(writes.pieces) == 1


async def test_the_head_does_not_wait_for_a_body_that_is_long_in_coming(cycle: Make) -> None:
    response, writes = cycle()
    await response.send(start())
    assert writes.pieces == []
    await asyncio.sleep(0)
    assert writes.pieces == [b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n"]
    await response.send(body(b"late", more=True))
    await response.send(body(b"", more=True))
    await response.send(body(b"!"))
    assert writes.pieces[1:] == [b"4\r\nlate\r\n", b"1\r\n!\r\n0\r\n\r\n"]


async def test_a_large_body_is_not_copied(cycle: Make) -> None:
    response, writes = cycle()
    large = bytes(100_000)
    await response.send(start((b"content-length", b"100000")))
    await response.send(body(memoryview(large)))
    assert writes.pieces == [b"HTTP/1.1 200 OK\r\ncontent-length: 100000\r\n\r\n", large]


@pytest.mark.parametrize("status", [200, 204])
async def test_what_has_no_body_is_a_head(cycle: Make, status: int) -> None:
    response, writes = cycle("HEAD" if status == 200 else "GET")
    await response.send(start((b"content-length", b"7"), status=status) if status == 200 else start(status=status))
    await response.send(body(b""))
    assert len(writes.pieces) == 1
    assert writes.pieces[0].endswith(b"\r\n\r\n")
    assert b"chunked" not in writes.pieces[0]


async def test_a_connection_that_is_not_kept_is_closed(cycle: Make) -> None:
    response, writes = cycle(keep_alive=False)
    await response.send(start((b"content-length", b"0")))
    await response.send(body(b""))
    assert writes.pieces[0].count(b"connection: close\r\n") == 1
    assert writes.closed


@pytest.mark.parametrize("value", [b"a\r\nx: y", b"a\nb", b"a\rb", b"\x00", b"\x7f"])
async def test_a_header_cannot_begin_another_one(cycle: Make, value: bytes) -> None:
    response, writes = cycle()
    with pytest.raises(RuntimeError):
        await response.send(start((b"x-a", value)))
    await asyncio.sleep(0)
    assert writes.pieces == []


@pytest.mark.parametrize(("length", "sent"), [(b"3", b"four"), (b"5", b"four")])
async def test_a_body_has_the_length_of_its_head(cycle: Make, length: bytes, sent: bytes) -> None:
    response, _ = cycle()
    await response.send(start((b"content-length", length)))
    with pytest.raises(RuntimeError):
        await response.send(body(sent))
    assert not response.response_complete


async def test_messages_come_in_order(cycle: Make) -> None:
    response, _ = cycle()
    with pytest.raises(RuntimeError):
        await response.send(body(b"early"))
    await response.send(start())
    with pytest.raises(RuntimeError):
        await response.send(start())
    await response.send(body(b""))
    with pytest.raises(RuntimeError):
        await response.send(body(b"late"))


async def test_nothing_is_written_for_a_client_that_has_left(cycle: Make) -> None:
    response, writes = cycle()
    response.disconnected = True
    await response.send(start())
    await response.send(body(b"gone"))
    assert writes.pieces == []
