"""Streams that are complete and right but oddly written: a proxy takes them and hands on strict ones."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence

from tests.scripted_upstream.stage import Stage


async def crlf(stage: Stage, frames: Sequence[bytes]) -> None:
    for frame in frames:
        await stage.chunk(frame.replace(b"\n", b"\r\n"))


async def byte_order_mark(stage: Stage, frames: Sequence[bytes]) -> None:
    await stage.chunk(b"\xef\xbb\xbf")
    await as_it_is(stage, frames)


async def comments(stage: Stage, frames: Sequence[bytes]) -> None:
    for frame in frames:
        await stage.chunk(b":\n\n" + b": ping\n" + frame)


async def ids(stage: Stage, frames: Sequence[bytes]) -> None:
    """Sticky ids, with comment frames between them: what kills Python's SDK."""
    for number, frame in enumerate(frames):
        await stage.chunk(b"id: %d\n%b: ping\n\n" % (number, frame))


async def retry(stage: Stage, frames: Sequence[bytes]) -> None:
    await stage.chunk(b"retry: 3000\n\n")
    await as_it_is(stage, frames)


async def ping_events(stage: Stage, frames: Sequence[bytes]) -> None:
    for frame in frames:
        await stage.chunk(b"event: ping\n\n" + frame)


async def no_space(stage: Stage, frames: Sequence[bytes]) -> None:
    for frame in frames:
        await stage.chunk(frame.replace(b"data: ", b"data:", 1))


async def multi_line(stage: Stage, frames: Sequence[bytes]) -> None:
    for frame in frames:
        await stage.chunk(frame.replace(b'":', b'":\ndata: ', 1))


async def split(stage: Stage, frames: Sequence[bytes]) -> None:
    """Every few bytes in a chunk and a packet of their own, letters cut in the middle."""
    whole = b"".join(frames)
    for start in range(0, len(whole), 7):
        await stage.chunk(whole[start : start + 7])
        await asyncio.sleep(0)


async def together(stage: Stage, frames: Sequence[bytes]) -> None:
    """Everything in one chunk."""
    await stage.chunk(b"".join(frames))


async def after_done(stage: Stage, frames: Sequence[bytes]) -> None:
    """A comment after the terminal event."""
    await as_it_is(stage, frames)
    await stage.chunk(b": bye\n\n")


async def bare_end(stage: Stage, frames: Sequence[bytes]) -> None:
    """The last frame without its newlines, in a chunk of its own, and later than the others."""
    for frame in frames[:-1]:
        await stage.chunk(frame)
    await asyncio.sleep(0)
    await stage.chunk(frames[-1].rstrip(b"\n"))


async def one_newline(stage: Stage, frames: Sequence[bytes]) -> None:
    """The last frame with one newline only."""
    await as_it_is(stage, frames[:-1])
    await stage.chunk(frames[-1].rstrip(b"\n") + b"\r\n")


async def padded(stage: Stage, frames: Sequence[bytes]) -> None:
    """OpenAI's padding beside each piece of text."""
    for frame in frames:
        await stage.chunk(frame.replace(b'"delta":', b'"obfuscation":"x7Kq","delta":', 1))


async def as_it_is(stage: Stage, frames: Sequence[bytes]) -> None:
    for frame in frames:
        await stage.chunk(frame)


Oddity = Callable[[Stage, Sequence[bytes]], Awaitable[None]]

ODDITIES: dict[str, Oddity] = {
    "crlf": crlf,
    "bom": byte_order_mark,
    "comments": comments,
    "ids": ids,
    "retry": retry,
    "ping-events": ping_events,
    "no-space": no_space,
    "multi-line": multi_line,
    "split": split,
    "together": together,
    "after-done": after_done,
    "padded": padded,
    "bare-end": bare_end,
    "one-newline": one_newline,
}

#: those that make sense for NDJSON as well
OF_LINES = ("crlf", "split", "together", "bare-end", "one-newline")
