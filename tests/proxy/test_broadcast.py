"""One answer, many readers."""

import asyncio

import pytest

from llmproxy.proxy.broadcast import BroadcastBuffer, BroadcastReader, Head, Lagged


async def test_a_late_reader_gets_the_prefix_at_once_and_then_the_rest() -> None:
    buffer: BroadcastBuffer[str] = BroadcastBuffer(limit=1000)
    buffer.begin(Head(stream=True))
    buffer.add([b"a", b"b"])
    reader = BroadcastReader(buffer)
    assert reader.behind
    assert reader.take() == [b"a", b"b"]
    assert reader.take() == []
    waiting = asyncio.create_task(reader.wait())
    await asyncio.sleep(0)
    buffer.add([b"c"])
    assert await waiting
    assert reader.take() == [b"c"]
    buffer.finish("done")
    assert buffer.outcome == "done"
    assert len(buffer.millis) == 3


async def test_every_reader_wakes_at_the_end() -> None:
    buffer: BroadcastBuffer[str] = BroadcastBuffer(limit=1000)
    waits = [asyncio.create_task(BroadcastReader(buffer).wait()) for _ in range(5)]
    await asyncio.sleep(0)
    buffer.finish("done")
    assert await asyncio.gather(*waits) == [True] * 5


async def test_a_wait_ends_when_its_time_is_over_or_it_is_poked() -> None:
    buffer: BroadcastBuffer[str] = BroadcastBuffer(limit=1000)
    reader = BroadcastReader(buffer)
    assert not await reader.wait(0)
    reader.wake_up()
    assert await reader.wait()
    waiting = asyncio.create_task(reader.wait(60))
    await asyncio.sleep(0)
    reader.wake_up()
    assert await waiting


async def test_up_to_the_limit_everything_is_kept() -> None:
    buffer: BroadcastBuffer[str] = BroadcastBuffer(limit=4)
    buffer.add([b"ab", b"cd"])
    assert not buffer.overflowed
    await buffer.wait_capacity()
    assert BroadcastReader(buffer).take() == [b"ab", b"cd"]


async def test_beyond_the_limit_the_producer_waits_for_the_quickest_reader() -> None:
    buffer: BroadcastBuffer[str] = BroadcastBuffer(limit=4)
    quick, slow = BroadcastReader(buffer), BroadcastReader(buffer)
    buffer.add([b"abc", b"def"])
    assert buffer.overflowed
    wait_capacity = asyncio.create_task(buffer.wait_capacity())
    await asyncio.sleep(0)
    assert not wait_capacity.done()
    assert quick.take() == [b"abc", b"def"]
    await wait_capacity
    # the quick one has it, so the window moves on, and the slow one has lost its place
    buffer.add([b"ghi"])
    assert quick.take() == [b"ghi"]
    with pytest.raises(Lagged):
        slow.take()


async def test_nothing_the_quickest_reader_needs_is_dropped() -> None:
    buffer: BroadcastBuffer[str] = BroadcastBuffer(limit=4)
    reader = BroadcastReader(buffer)
    got = b""
    for index in range(50):
        buffer.add([b"%02d" % index])
        if index % 3 == 0:
            got += b"".join(reader.take())
    got += b"".join(reader.take())
    assert got == b"".join(b"%02d" % index for index in range(50))
    assert len(buffer.frames) < 50


async def test_a_cancelled_wait_leaves_nothing_behind() -> None:
    buffer: BroadcastBuffer[str] = BroadcastBuffer(limit=10)
    reader = BroadcastReader(buffer)
    waiting = asyncio.create_task(reader.wait(60))
    await asyncio.sleep(0)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    buffer.add([b"x"])
    assert reader.take() == [b"x"]
