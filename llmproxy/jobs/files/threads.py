"""Threads for the blocking calls of one store of files."""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from typing import TypeVar

T = TypeVar("T")

_MOST = 4


class Threads:
    """A few threads of their own: a disk or a store that hangs holds up files and nobody else."""

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(_MOST, thread_name_prefix="files")

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
