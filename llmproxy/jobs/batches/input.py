"""A batch's input file, read at constant memory."""

from collections.abc import AsyncGenerator
from contextlib import aclosing

from llmproxy.jobs.blobs import Blobs


async def numbered(blobs: Blobs, name: str) -> AsyncGenerator[tuple[int, list[bytes]]]:
    """The lines, some at a time, with the number of the first of them; the file's first line is 1.

    Raises ``FileNotFoundError``, ``Unavailable``. To be closed by who does not read to the end.
    """
    number = 1
    async with aclosing(blobs.lines(name)) as pages:
        async for lines in pages:
            yield number, lines
            number += len(lines)
