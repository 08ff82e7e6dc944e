"""Entries for tests, and a clock that is moved by hand."""

import asyncio
import hashlib
from array import array
from typing import Any

from llmproxy.cache.entry import Entry
from tests.timeouts import WAIT_SECONDS


class Faults:
    """Counts what a tier is said to have suffered."""

    def __init__(self) -> None:
        self.kinds: list[str] = []
        self._more = asyncio.Event()

    def __call__(self, tier: str, kind: str) -> None:
        self.kinds.append(kind)
        self._more.set()

    async def seen(self, kind: str, times: int = 1) -> None:
        """Returns when ``kind`` was counted so many times."""
        async with asyncio.timeout(WAIT_SECONDS):
            while self.kinds.count(kind) < times:
                self._more.clear()
                await self._more.wait()


def key(number: int) -> bytes:
    return hashlib.sha256(b"%d" % number).digest()


def entry(number: int, **fields: Any) -> Entry:
    """A plain answer; ``number`` makes it different from others."""
    values: dict[str, Any] = {
        "key": key(number),
        "operation": "chat",
        "model": "m",
        "scope": "",
        "namespace": "",
        "tags": (),
        "created": 1_000_000.0,
        "expires": 1_003_600.0,
        "document": b'{"id":"%d"}' % number,
    }
    return Entry(**{**values, **fields})


def streamed(number: int, size: int = 500) -> Entry:
    """An answer that came as a stream, with all its fields set."""
    frames = [b"data: %d %s\n\n" % (i, b"x" * (size // 10)) for i in range(10)]
    ends = array("I", [sum(len(frame) for frame in frames[: i + 1]) for i in range(10)])
    return entry(
        number,
        document=b'{"id":"%d","text":"%s"}' % (number, b"y" * size),
        frames=b"".join(frames),
        ends=ends.tobytes(),
        millis=array("I", range(10)).tobytes(),
        hidden=array("I", [ends[7], ends[8]]).tobytes(),
        headers=((b"content-type", b"text/event-stream"), (b"openai-model", b"\xe9")),
        upstream_seconds=1.25,
        prompt_tokens=12,
        completion_tokens=3456,
        tags=("a", "b c"),
    )
