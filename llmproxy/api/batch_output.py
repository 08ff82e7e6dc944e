"""A batch's output and error file: their lines, which have one form, and how they are written."""

from contextlib import AsyncExitStack
from hashlib import sha256

import orjson

from llmproxy.jobs.blobs import Blobs, Sink
from llmproxy.jobs.model import Failure, File, Item, ItemStatus

_UNFINISHED = {
    ItemStatus.CANCELLED: Failure("batch_cancelled", "This request was not executed because the batch was cancelled."),
    ItemStatus.EXPIRED: Failure(
        "batch_expired", "This request could not be executed before the completion window expired."
    ),
}
_NO_REASON = Failure("error", "The request failed.")

#: what OpenAI calls failures that we have another name for
_CODES = {"upstream_timeout": "request_timeout"}


def output_line(job_id: str, item: Item) -> bytes:
    """The line of a call that is over. HTTP errors stand in ``response``; ``error`` says why an answer is missing."""
    if item.status in _UNFINISHED:
        return unfinished_line(job_id, item.position, item.label, item.status)
    if not item.status_code:
        return _line(job_id, item.position, item.label, b"null", _error_json(item.error or _NO_REASON))
    response = b'{"status_code":%d,"request_id":%b,"body":%b}' % (
        item.status_code,
        orjson.dumps(item.request_id),
        _one_line(item.body or b"null"),
    )
    return _line(job_id, item.position, item.label, response, b"null")


def unfinished_line(job_id: str, position: int, custom_id: str, status: ItemStatus) -> bytes:
    """The line of a call that was ``cancelled`` or ``expired``."""
    return _line(job_id, position, custom_id, b"null", _error_json(_UNFINISHED[status]))


def _line(job_id: str, position: int, custom_id: str, response: bytes, error: bytes) -> bytes:
    # the same each time that the file is written
    id = sha256(f"{job_id}:{position}".encode()).hexdigest()[:32]
    quoted_id = orjson.dumps(custom_id)
    return b'{"id":"batch_req_%b","custom_id":%b,"response":%b,"error":%b}\n' % (
        id.encode(),
        quoted_id,
        response,
        error,
    )


def _error_json(failure: Failure) -> bytes:
    return orjson.dumps({"code": _CODES.get(failure.code, failure.code), "message": failure.message})


def _one_line(body: bytes) -> bytes:
    """JSON with line breaks means the same without: they can only stand between its parts."""
    if b"\n" in body or b"\r" in body:
        return body.replace(b"\r", b" ").replace(b"\n", b" ")
    return body


class OutputFile:
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
    def id_if_any(self) -> str | None:
        """The id, None for a file that got no lines."""
        return self.id if self.bytes else None

    @property
    def sha256(self) -> str:
        """Hex, of what was written so far."""
        return self._hash.hexdigest()

    def row(self, scope: str, now: float, expires_at: float) -> File:
        """Its row, once it is written."""
        return File(self.id, scope, "batch_output", self.filename, self.bytes, self.sha256, now, expires_at)

    async def write(self, data: bytes) -> None:
        if not data:
            return
        if self._sink is None:
            self._sink = await self._stack.enter_async_context(self._blobs.create(self.id))
        await self._sink.write(data)
        self._hash.update(data)
        self.bytes += len(data)
