"""Work on bodies, kept off the event loop where it would hold up everybody else."""

import asyncio
from collections.abc import Callable
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")

#: Work on so many bytes takes less than 5 ms, whatever they are: the worst of JSON, an object of tiny members, costs
#: 100 ns a byte to read and to write again.
INLINE_BYTES = 64 * 1024


async def offload(size: int, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """``work`` done at once for ``size`` bytes that are few, else in a thread."""
    if size <= INLINE_BYTES:
        return work(*args, **kwargs)
    return await asyncio.to_thread(work, *args, **kwargs)
