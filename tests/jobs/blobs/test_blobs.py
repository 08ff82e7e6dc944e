"""What every store of files promises, on a folder and on a store of fsspec's."""

import asyncio
import time
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from pathlib import Path
from typing import TypeVar

import pytest

from llmproxy.jobs.blob_stores import Folder
from llmproxy.jobs.blobs import CHUNK, Blobs
from llmproxy.jobs.blobs_fsspec import Remote
from llmproxy.wire.errors import Unavailable

T = TypeVar("T")

A, B = "file-a", "file-b"


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """Where the store keeps what it keeps; made when it is needed."""
    return tmp_path / "deep" / "files"


@pytest.fixture(params=["folder", "remote"])
def blobs(request: pytest.FixtureRequest, place: Path) -> Blobs:
    stores: dict[str, Callable[[], Blobs]] = {
        "folder": lambda: Folder(place),
        "remote": lambda: Remote(f"file://{place}"),
    }
    return stores[request.param]()


async def put(blobs: Blobs, name: str, *pieces: bytes) -> None:
    async with blobs.create(name) as sink:
        for piece in pieces:
            await sink.write(piece)


async def all_of(generator: AsyncGenerator[T]) -> list[T]:
    async with aclosing(generator):
        return [each async for each in generator]


def listed(place: Path) -> list[str]:
    """Everything that lies there, hidden or not."""
    return [path.name for path in place.iterdir()]


async def content(blobs: Blobs, name: str) -> bytes:
    return b"".join(await all_of(blobs.read(name)))


@pytest.mark.parametrize("size", [0, 1, CHUNK - 1, CHUNK, CHUNK + 1, 3 * CHUNK + 7])
async def test_what_is_written_is_read_in_pieces(blobs: Blobs, size: int) -> None:
    data = bytes(range(256)) * (size // 256 + 1)
    await put(blobs, A, *(data[at : min(at + 10_007, size)] for at in range(0, size, 10_007)))
    pieces = await all_of(blobs.read(A))
    assert b"".join(pieces) == data[:size]
    assert all(0 < len(piece) <= CHUNK for piece in pieces)


async def test_lines_come_in_order_and_some_at_a_time(blobs: Blobs) -> None:
    await put(blobs, A, *(b'{"n": %d}\n' % number for number in range(30_000)))
    groups = await all_of(blobs.lines(A))
    assert max(len(group) for group in groups) <= 500
    assert [line for group in groups for line in group] == [b'{"n": %d}' % number for number in range(30_000)]


async def test_a_blob_is_there_only_when_it_is_whole(blobs: Blobs) -> None:
    async with blobs.create(A) as sink:
        await sink.write(b"x" * CHUNK)
        assert await blobs.names() == []
        with pytest.raises(FileNotFoundError):
            await content(blobs, A)
    assert await blobs.names() == [A]
    assert await content(blobs, A) == b"x" * CHUNK


async def test_an_error_leaves_what_was_there(blobs: Blobs, place: Path) -> None:
    await put(blobs, A, b"old")

    async def fail() -> None:
        async with blobs.create(A) as sink:
            await sink.write(b"x" * 3 * CHUNK)
            raise RuntimeError("midway")

    with pytest.raises(RuntimeError, match="midway"):
        await fail()
    assert await content(blobs, A) == b"old"
    assert listed(place) == [A]


async def test_a_cancelled_writer_leaves_nothing(blobs: Blobs, place: Path) -> None:
    began = asyncio.Event()

    async def write() -> None:
        async with blobs.create(A) as sink:
            while True:
                await sink.write(b"x" * CHUNK)
                began.set()

    writing = asyncio.create_task(write())
    await began.wait()
    writing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await writing
    assert await blobs.names() == []
    assert listed(place) == []


async def test_a_second_writer_takes_the_place_of_the_first(blobs: Blobs) -> None:
    await put(blobs, A, b"first, and longer")
    await put(blobs, A, b"second")
    assert await content(blobs, A) == b"second"
    assert await blobs.names() == [A]


async def test_a_reader_keeps_what_it_opened(blobs: Blobs) -> None:
    await put(blobs, A, b"1" * CHUNK, b"2" * CHUNK)
    async with aclosing(blobs.read(A)) as pieces:
        first = await anext(pieces)
        await put(blobs, A, b"other")
        assert first + b"".join([piece async for piece in pieces]) == b"1" * CHUNK + b"2" * CHUNK


async def test_a_reader_may_leave_early(blobs: Blobs) -> None:
    await put(blobs, A, b"line\n" * CHUNK)
    for generator in (blobs.read(A), blobs.lines(A)):
        assert await anext(generator)
        await generator.aclose()
    await blobs.delete(A)
    assert await blobs.names() == []


async def test_a_reader_may_be_cancelled(blobs: Blobs) -> None:
    await put(blobs, A, b"x" * 4 * CHUNK)
    began = asyncio.Event()

    async def read() -> None:
        while True:
            began.set()
            await content(blobs, A)

    reading = asyncio.create_task(read())
    await began.wait()
    reading.cancel()
    with pytest.raises(asyncio.CancelledError):
        await reading
    assert await content(blobs, A) == b"x" * 4 * CHUNK


async def test_what_is_not_there(blobs: Blobs) -> None:
    assert await blobs.names() == []
    await blobs.delete(A)
    await blobs.tidy(time.time())
    await put(blobs, B, b"something")
    await blobs.delete(A)
    for generator in (blobs.read(A), blobs.lines(A)):
        with pytest.raises(FileNotFoundError):
            await anext(generator)
    with pytest.raises(FileNotFoundError):
        await blobs.written_at(A)


async def test_deleted_is_gone(blobs: Blobs) -> None:
    await put(blobs, A, b"a")
    await put(blobs, B, b"b")
    await blobs.delete(A)
    assert await blobs.names() == [B]


async def test_when_it_was_written(blobs: Blobs) -> None:
    before = time.time()
    await put(blobs, A, b"a")
    assert before - 1 <= await blobs.written_at(A) <= time.time() + 1


async def test_many_at_once(blobs: Blobs) -> None:
    names = [f"file-{number}" for number in range(20)]
    await asyncio.gather(*(put(blobs, name, name.encode() * 10_000) for name in names))
    assert sorted(await blobs.names()) == sorted(names)
    read = await asyncio.gather(*(content(blobs, name) for name in names))
    assert read == [name.encode() * 10_000 for name in names]


@pytest.mark.parametrize(
    "name", ["", "a", "file-", "file-a/b", "../file-a", "file-a.b", "file-a\n", "file-" + "a" * 121]
)
async def test_only_ids_are_names(blobs: Blobs, name: str) -> None:
    with pytest.raises(ValueError, match="not the id of a file"):
        await put(blobs, name, b"x")
    for work in (anext(blobs.read(name)), anext(blobs.lines(name)), blobs.delete(name), blobs.written_at(name)):
        with pytest.raises(ValueError, match="not the id of a file"):
            await work


async def test_what_is_not_ours_is_not_listed(blobs: Blobs, place: Path) -> None:
    await put(blobs, A, b"a")
    (place / "somebody's thesis.doc").write_text("ten years of work")
    (place / "folder").mkdir()
    assert await blobs.names() == [A]
    await blobs.tidy(time.time() + 10)
    assert (place / "somebody's thesis.doc").exists()


async def test_a_store_that_cannot_be_used_is_unavailable(blobs: Blobs, place: Path) -> None:
    place.parent.parent.mkdir(exist_ok=True)
    place.parent.write_text("a file where a folder should be")
    with pytest.raises(Unavailable) as told:
        await put(blobs, A, b"a")
    assert told.value.http_status == 503
    assert str(place) not in told.value.message
