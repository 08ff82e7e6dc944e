"""An output file of a batch while it is being written: one that gets no lines is never made."""

from contextlib import AsyncExitStack
from hashlib import sha256

from llmproxy.jobs.blobs import Blobs, Sink


class Writing:
    """One file of a job, there once ``stack`` was left without error. Written anew, it takes the old one's place.

    ``what`` tells it from the job's other files. Its id is the same each time, and as hard to guess as the job's.
    """

    def __init__(self, job_id: str, what: str, blobs: Blobs, stack: AsyncExitStack) -> None:
        self.id = f"file-{sha256(f'{job_id}:{what}'.encode()).hexdigest()[:32]}"
        self.filename = f"{job_id}_{what}.jsonl"
        self.bytes = 0
        self._blobs = blobs
        self._stack = stack
        self._sink: Sink | None = None
        self._hash = sha256()

    @property
    def known_as(self) -> str | None:
        """The id, None for a file that got no lines."""
        return self.id if self.bytes else None

    @property
    def sha256(self) -> str:
        """Hex, of what was written so far."""
        return self._hash.hexdigest()

    async def write(self, data: bytes) -> None:
        if not data:
            return
        if self._sink is None:
            self._sink = await self._stack.enter_async_context(self._blobs.create(self.id))
        await self._sink.write(data)
        self._hash.update(data)
        self.bytes += len(data)
