"""One answer, many readers."""

import asyncio

import pytest

from llmproxy.proxy.broadcast import BroadcastBuffer, BroadcastReader, Head, Lagged


async def test_a_late_reader_gets_the_prefix_at_once_and_then_the_rest() -> None:
    capture: BroadcastBuffer[str] = BroadcastBuffer(limit=1000)
    capture.begin(Head(stream=True))
    capture.add([b"a", b"b"])
    reader = BroadcastReader(capture)
    assert reader.behind
    assert reader.take() == [b"a", b"b"]
    assert reader.take() == []
    waiting = asyncio.create_task(reader.wait())
    await asyncio.sleep(0)
    capture.add([b"c"])
    assert await waiting
    assert reader.take() == [b"c"]
    capture.finish("done")
    assert capture.outcome == "done"
    assert len(capture.millis) == 3


async def test_every_reader_wakes_at_the_end() -> None:
    capture: BroadcastBuffer[str] = BroadcastBuffer(limit=1000)
    waits = [asyncio.create_task(BroadcastReader(capture).wait()) for _ in range(5)]
    await asyncio.sleep(0)
    capture.finish("done")
    assert await asyncio.gather(*waits) == [True] * 5


async def test_a_wait_ends_when_its_time_is_over_or_it_is_poked() -> None:
    capture: BroadcastBuffer[str] = BroadcastBuffer(limit=1000)
    reader = BroadcastReader(capture)
    assert not await reader.wait(0)
    reader.poke()
    assert await reader.wait()
    waiting = asyncio.create_task(reader.wait(60))
    await asyncio.sleep(0)
    reader.poke()
    assert await waiting


async def test_up_to_the_limit_everything_is_kept() -> None:
    capture: BroadcastBuffer[str] = BroadcastBuffer(limit=4)
    capture.add([b"ab", b"cd"])
    assert not capture.overflowed
    await capture.room()
    assert BroadcastReader(capture).take() == [b"ab", b"cd"]


async def test_beyond_the_limit_the_producer_waits_for_the_quickest_reader() -> None:
    capture: BroadcastBuffer[str] = BroadcastBuffer(limit=4)
    quick, slow = BroadcastReader(capture), BroadcastReader(capture)
    capture.add([b"abc", b"def"])
    assert capture.overflowed
    room = asyncio.create_task(capture.room())
    await asyncio.sleep(0)
    assert not room.done()
    assert quick.take() == [b"abc", b"def"]
    await room
    # the quick one has it, so the window moves on, and the slow one has lost its place
    capture.add([b"ghi"])
    assert quick.take() == [b"ghi"]
    with pytest.raises(Lagged):
        slow.take()


async def test_nothing_the_quickest_reader_needs_is_dropped() -> None:
    capture: BroadcastBuffer[str] = BroadcastBuffer(limit=4)
    reader = BroadcastReader(capture)
    got = b""
    for index in range(50):
        capture.add([b"%02d" % index])
        if index % 3 == 0:
            got += b"".join(reader.take())
    got += b"".join(reader.take())
    assert got == b"".join(b"%02d" % index for index in range(50))
    assert len(capture.frames) < 50


async def test_a_cancelled_wait_leaves_nothing_behind() -> None:
    capture: BroadcastBuffer[str] = BroadcastBuffer(limit=10)
    reader = BroadcastReader(capture)
    waiting = asyncio.create_task(reader.wait(60))
    await asyncio.sleep(0)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    capture.add([b"x"])
    assert reader.take() == [b"x"]
