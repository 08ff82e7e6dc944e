"""``POST /v1/files``: the body goes straight to the store of files, once and at constant memory."""

from collections.abc import AsyncIterator
from dataclasses import dataclass
from hashlib import sha256

from starlette.requests import Request

from llmproxy.api import file_rows
from llmproxy.api.file_model import BATCH_BYTES, HEAD, check_begins_as_jsonl, lifetime_of, new_id, purpose_of
from llmproxy.api.services import exchange_of, job_services
from llmproxy.jobs.blobs import Sink
from llmproxy.jobs.model import File
from llmproxy.proxy.asgi import decoded, received
from llmproxy.wire.errors import BadRequest, TooLarge
from llmproxy.wire.multipart import MultipartForm
from llmproxy.wire.validation import idempotency_key

#: bytes of a form beside its file
_MOST_BESIDE = 4 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class _Written:
    size: int
    sha256: str
    head: bytes


async def upload(request: Request) -> File:
    """The new file; with an ``Idempotency-Key`` that is known already, the one that was uploaded with it first.

    Raises ``BadRequest``, ``TooLarge``, ``TooSlow``, ``Unsupported``, ``Unavailable``, ``ClientLeft``: nothing is kept
    then.
    """
    services = job_services(request)
    key = idempotency_key(request.headers.raw)
    form = MultipartForm(request.headers.get("content-type", ""))
    id = new_id()
    async with services.blobs.create(id) as sink:
        settings = services.proxy.settings
        body = decoded(received(request.receive, settings), request.headers.raw)
        written = await _write(body, form, sink, settings.file_max_bytes)
        purpose = purpose_of(form.fields)
        lifetime = lifetime_of(form.fields, purpose)
        if purpose == "batch":
            check_begins_as_jsonl(written.head)
    now = services.queue.clock()
    file = File(
        id=id,
        scope=exchange_of(request).caller.owner,
        purpose=purpose,
        filename=form.filename or "",
        bytes=written.size,
        sha256=written.sha256,
        created_at=now,
        expires_at=None if lifetime is None else now + lifetime,
        idempotency_key=key,
    )
    # if this fails nobody knows whether the row is there; if it is not, the bytes are nobody's and will be swept
    stored = await file_rows.put(services.store, file)
    if stored.id != id:
        await services.blobs.delete(id)
    return stored


async def _write(body: AsyncIterator[bytes], form: MultipartForm, sink: Sink, most: int) -> _Written:
    digest, head, total, size = sha256(), bytearray(), 0, 0
    async for chunk in body:
        total += len(chunk)
        for piece in form.feed(chunk):
            size += len(piece)
            _check_size(size, most, form)
            digest.update(piece)
            head += piece[: HEAD - len(head)]
            await sink.write(piece)
        if total - size > _MOST_BESIDE:
            raise TooLarge(f"The form takes more than {_MOST_BESIDE} bytes beside its file.")
    form.end()
    if form.filename is None:
        raise BadRequest("'file' is a required property", param="file")
    _check_size(size, most, form)
    return _Written(size, digest.hexdigest(), bytes(head))


def _check_size(size: int, most: int, form: MultipartForm) -> None:
    if size > most:
        raise TooLarge(f"The file is larger than {most} bytes (LLMPROXY_FILE_MAX_BYTES).", param="file")
    # known from the beginning, or only at the end: the parts come in any order
    if size > BATCH_BYTES and form.fields.get("purpose") == "batch":
        raise TooLarge(f"The input file of a batch takes at most {BATCH_BYTES} bytes.", param="file")
