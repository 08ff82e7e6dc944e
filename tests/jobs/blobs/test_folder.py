"""What only a folder has: rights, and what a crash leaves in it."""

import asyncio
import os
import stat
import time
from pathlib import Path

from llmproxy.jobs.blob_stores import Folder


async def test_only_the_owner_may_look(tmp_path: Path) -> None:
    place = tmp_path / "made" / "files"
    async with Folder(place).create("file-a") as sink:
        await sink.write(b"private")
        assert {stat.S_IMODE(path.stat().st_mode) for path in place.iterdir()} == {0o600}
    assert stat.S_IMODE(place.stat().st_mode) == 0o700
    assert stat.S_IMODE((place / "file-a").stat().st_mode) == 0o600


async def test_what_a_crash_left_is_deleted_and_what_is_being_written_is_not(tmp_path: Path) -> None:
    blobs = Folder(tmp_path)
    left = tmp_path / ".file-a.0123456789abcdef.part"
    left.write_bytes(b"half")
    os.utime(left, (1000, 1000))
    async with blobs.create("file-b") as sink:
        await sink.write(b"b")
        await blobs.tidy(time.time() - 60)
        assert not left.exists()
    assert await blobs.names() == ["file-b"]


async def test_a_disk_that_hangs_does_not_hold_up_the_loop(tmp_path: Path) -> None:
    """A pipe that nobody writes to is a file whose opening takes for ever."""
    blobs = Folder(tmp_path)
    os.mkfifo(tmp_path / "file-a")
    reading = asyncio.ensure_future(anext(blobs.read("file-a")))
    for _ in range(10):
        await asyncio.sleep(0)
    async with blobs.create("file-b") as sink:
        await sink.write(b"meanwhile")
    assert not reading.done()
    writer = await asyncio.to_thread((tmp_path / "file-a").open, "wb")
    writer.write(b"at last")
    writer.close()
    assert await reading == b"at last"
