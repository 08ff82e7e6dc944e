"""The bytes of files: named byte strings, written once and read in pieces or by lines, at constant memory.

``Blobs`` is the interface, ``BlockingBlobs`` what a folder and a remote store have in common.
"""

import asyncio
import logging
import re
from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Generator, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractAsyncContextManager, aclosing, asynccontextmanager, closing, suppress
from functools import partial
from typing import BinaryIO, Protocol, TypeVar

from llmproxy.wire.errors import Unavailable
from llmproxy.wire.headers import retry_after


class Sink(Protocol):
    """A blob being written. It is there under its name only after the block that opened it ended without error."""

    async def write(self, data: bytes) -> None: ...


class Blobs(Protocol):
    """Named byte strings, written once, of any size, at constant memory. No method blocks the loop.

    Names are ids of files. Every method raises ``Unavailable`` if the store cannot be used, and ``ValueError`` for a
    name that is not an id. A caller that leaves a generator early closes it (``contextlib.aclosing``).
    """

    def create(self, name: str) -> AbstractAsyncContextManager[Sink]:
        """Writes the whole of a blob, over one of the same name."""
        ...

    def read(self, name: str) -> AsyncGenerator[bytes]:
        """The bytes in pieces of at most 256 KiB. Raises ``FileNotFoundError``."""
        ...

    def lines(self, name: str) -> AsyncGenerator[list[bytes]]:
        """The lines in order, up to 500 at a time, without their ends (LF or CR LF). An empty last line does
        not count; the rest of a line longer than ``LONGEST`` is left out. Raises ``FileNotFoundError``."""
        ...

    async def delete(self, name: str) -> None:
        """Safe to call for a name that is not there."""
        ...

    async def names(self) -> list[str]:
        """Every name, so that blobs without an owner can be found."""
        ...

    async def written_at(self, name: str) -> float:
        """When a blob was written, Unix seconds. Raises ``FileNotFoundError``."""
        ...

    async def tidy(self, before: float) -> None:
        """Deletes what a crash left half-written before then, Unix seconds."""
        ...


#: bytes of a line that are kept: no model server takes a longer request
LONGEST = 32 * 1024 * 1024

#: lines handed on at a time
_MOST = 500


def split_lines(pieces: Iterable[bytes], most: int = _MOST, longest: int = LONGEST) -> Iterator[list[bytes]]:
    """The lines in order, up to ``most`` at a time, without their ends (LF or CR LF). An empty last line
    does not count. The rest of a line longer than ``longest`` bytes is left out.
    """
    open_line = _PartialLine(longest)
    for piece in pieces:
        head, *more = piece.split(b"\n")
        open_line.add(head)
        if not more:
            continue
        *whole, rest = more
        lines = [open_line.take(), *(_without_cr(line[:longest]) for line in whole)]
        open_line.add(rest)
        for at in range(0, len(lines), most):
            yield lines[at : at + most]
    if last := open_line.take():
        yield [last]


class _PartialLine:
    """The line whose end has not come yet."""

    def __init__(self, longest: int) -> None:
        self._longest = longest
        self._parts: list[bytes] = []
        self._room = longest

    def add(self, part: bytes) -> None:
        if part and self._room:
            self._parts.append(part[: self._room])
            self._room -= len(self._parts[-1])

    def take(self) -> bytes:
        line = b"".join(self._parts)
        self._parts, self._room = [], self._longest
        return _without_cr(line)


def _without_cr(line: bytes) -> bytes:
    return line.removesuffix(b"\r")


log = logging.getLogger(__name__)

T = TypeVar("T")

#: bytes that go to the store, or come from it, at a time
CHUNK = 256 * 1024

#: an id of a file; nothing else in a folder may be listed or deleted
NAME = re.compile(r"file-[A-Za-z0-9_-]{1,120}")

#: threads of one store
_MOST_THREADS = 4

_RETRY = (retry_after(2),)


class BlobWriter(Protocol):
    """A blob being written, by blocking calls in this order; ``discard`` at any time, once or more."""

    def open(self) -> None: ...

    def write(self, data: bytes) -> None: ...

    def commit(self) -> None:
        """From now on it is there under its name."""
        ...

    def discard(self) -> None:
        """Leaves nothing of it, unless it was committed."""
        ...


class BlockingBlobs(ABC):
    """A store whose calls block: each is made in a thread, one after the other for each blob in hand.

    The methods with an underscore are the store's own. They raise whatever its driver raises.
    """

    def __init__(self) -> None:
        self._threads = _Threads()

    @abstractmethod
    def _writer(self, name: str) -> BlobWriter: ...

    @abstractmethod
    def _open(self, name: str) -> BinaryIO:
        """Raises ``FileNotFoundError``."""

    @abstractmethod
    def _delete(self, name: str) -> None: ...

    @abstractmethod
    def _names(self) -> list[str]:
        """Returns names; some may not be ids."""

    @abstractmethod
    def _written_at(self, name: str) -> float:
        """Raises ``FileNotFoundError``."""

    @abstractmethod
    def _tidy(self, before: float) -> None: ...

    @asynccontextmanager
    async def create(self, name: str) -> AsyncIterator[Sink]:
        writer = self._writer(_valid_name(name))
        sink = _BufferedSink(partial(self._call, writer.write))
        try:
            await self._call(writer.open)
            yield sink
            await sink.flush()
            await self._call(writer.commit)
        except BaseException:
            # what cannot be discarded now is found by ``tidy``; the first error says more than the second
            with suppress(Unavailable):
                await self._call(writer.discard)
            raise

    async def read(self, name: str) -> AsyncGenerator[bytes]:
        async with aclosing(self._walk(self._pieces(_valid_name(name)))) as pieces:
            async for piece in pieces:
                yield piece

    async def lines(self, name: str) -> AsyncGenerator[list[bytes]]:
        async with aclosing(self._walk(self._lines(_valid_name(name)))) as groups:
            async for group in groups:
                yield group

    async def delete(self, name: str) -> None:
        await self._call(self._delete, _valid_name(name))

    async def names(self) -> list[str]:
        return [name for name in await self._call(self._names) if NAME.fullmatch(name)]

    async def written_at(self, name: str) -> float:
        return await self._call(self._written_at, _valid_name(name), absent=FileNotFoundError)

    async def tidy(self, before: float) -> None:
        await self._call(self._tidy, before)

    def _pieces(self, name: str) -> Generator[bytes]:
        with self._open(name) as file:
            while piece := file.read(CHUNK):
                yield piece

    def _lines(self, name: str) -> Generator[list[bytes]]:
        with closing(self._pieces(name)) as pieces:
            yield from split_lines(pieces)

    async def _walk(self, steps: Generator[T]) -> AsyncGenerator[T]:
        """A blocking generator, each step of it in a thread."""
        try:
            while (step := await self._call(next, steps, None, absent=FileNotFoundError)) is not None:
                yield step
        finally:
            await self._call(steps.close)

    async def _call(self, work: Callable[..., T], *arguments: object, absent: type[OSError] | tuple[()] = ()) -> T:
        """Raises ``Unavailable`` for whatever the store raises, but for ``absent``."""
        try:
            return await self._threads.run(work, *arguments)
        except absent:
            raise
        except Exception as error:
            # a store behind fsspec raises what its own client library raises
            log.warning("the store of the files failed: %s", error)
            reason = error.strerror if isinstance(error, OSError) and error.strerror else type(error).__name__
            raise Unavailable(f"The store of the files cannot be used now ({reason}).", headers=_RETRY) from error


class _BufferedSink:
    """A ``Sink`` that hands on whole chunks."""

    def __init__(self, hand_on: Callable[[bytes], Awaitable[None]]) -> None:
        self._hand_on = hand_on
        self._waiting: list[bytes] = []
        self._size = 0

    async def write(self, data: bytes) -> None:
        self._waiting.append(data)
        self._size += len(data)
        if self._size >= CHUNK:
            await self.flush()

    async def flush(self) -> None:
        data, self._waiting, self._size = self._waiting, [], 0
        if data:
            await self._hand_on(b"".join(data))


class _Threads:
    """A few threads of their own: a disk or a store that hangs holds up files and nobody else."""

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(_MOST_THREADS, thread_name_prefix="files")

    async def run(self, work: Callable[..., T], *arguments: object) -> T:
        """What ``work`` returns or raises. A cancelled caller leaves after it has ended, and not before: nobody may
        close what a thread still uses."""
        call = asyncio.get_running_loop().run_in_executor(self._pool, partial(work, *arguments))
        try:
            return await asyncio.shield(call)
        except asyncio.CancelledError:
            while not call.done():
                with suppress(asyncio.CancelledError):
                    await asyncio.wait({call})
            raise


def _valid_name(name: str) -> str:
    if not NAME.fullmatch(name):
        raise ValueError(f"{name!r} is not the id of a file")
    return name
