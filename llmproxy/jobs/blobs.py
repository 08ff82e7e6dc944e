"""Where the bytes of files are, as everyone sees it who reads or writes them."""

from collections.abc import AsyncGenerator
from contextlib import AbstractAsyncContextManager
from typing import Protocol


class Sink(Protocol):
    """A blob being written. It is there under its name only after the block that opened it ended without error."""

    async def write(self, data: bytes) -> None: ...


class Blobs(Protocol):
    """Named byte strings, written once, of any size, at constant memory. No method blocks the loop.

    Names are ids of files. Every method raises ``Unavailable`` where the store cannot be used, and ``ValueError`` for
    a name that is no id. Generators are closed by the one who leaves them early (``contextlib.aclosing``).
    """

    def create(self, name: str) -> AbstractAsyncContextManager[Sink]:
        """Writes the whole of a blob, over one of the same name."""
        ...

    def read(self, name: str) -> AsyncGenerator[bytes]:
        """The bytes in pieces of at most 256 KiB. Raises ``FileNotFoundError``."""
        ...

    def lines(self, name: str) -> AsyncGenerator[list[bytes]]:
        """The lines in order, up to 500 at a time, without their ends (LF or CR LF). An empty last line is none; of
        one longer than ``cutting.LONGEST`` the rest is left out. Raises ``FileNotFoundError``."""
        ...

    async def delete(self, name: str) -> None:
        """Safe to call for a name that is not there."""
        ...

    async def names(self) -> list[str]:
        """Every name, for the one who looks for what nobody owns any more."""
        ...

    async def written_at(self, name: str) -> float:
        """When a blob was written, Unix seconds. Raises ``FileNotFoundError``."""
        ...

    async def tidy(self, before: float) -> None:
        """Deletes what a crash left half-written before then, Unix seconds."""
        ...
