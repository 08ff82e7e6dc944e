"""OpenAI's Files: each caller sees the files of their own scope."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing

from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from llmproxy.api import file_rows
from llmproxy.api.file_model import file_object, read_list_query
from llmproxy.api.file_upload import upload
from llmproxy.api.http import json_response, list_response
from llmproxy.api.services import exchange_of, job_services
from llmproxy.jobs.blobs import NAME, Blobs
from llmproxy.jobs.model import File
from llmproxy.proxy.endpoint import Listening
from llmproxy.proxy.listen import Client, ClientDisconnected, StreamAborted
from llmproxy.wire.errors import NotFound, Unavailable

#: how long a client may take for one piece
_SEND_SECONDS = 60.0


class Download:
    """An ASGI application. Raises ``NotFound`` if the bytes are gone, ``Unavailable``; both before anything is sent.

    A client that leaves, or stops reading, ends the reading too.
    """

    def __init__(self, blobs: Blobs, file: File) -> None:
        self._blobs = blobs
        self._file = file

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        with Listening(scope, receive) as client:
            async with aclosing(self._blobs.read(self._file.id)) as pieces:
                try:
                    first = await anext(pieces, b"")
                except FileNotFoundError:
                    raise NotFound(f"The content of {self._file.id} is not there any more.", param="id") from None
                client.watch(lambda: None)
                await send({"type": "http.response.start", "status": 200, "headers": self._headers()})
                if scope["method"] != "HEAD":
                    await _send_piece(send, first)
                    await _send_all(send, pieces, client)
                await send({"type": "http.response.body", "body": b""})

    def _headers(self) -> list[tuple[bytes, bytes]]:
        return [(b"content-type", b"application/octet-stream"), (b"content-length", b"%d" % self._file.bytes)]


async def _send_all(send: Send, pieces: AsyncIterator[bytes], client: Client) -> None:
    try:
        async for piece in pieces:
            if client.disconnected:
                raise ClientDisconnected
            await _send_piece(send, piece)
    except Unavailable as error:
        raise StreamAborted(error.message) from error


async def _send_piece(send: Send, piece: bytes) -> None:
    try:
        async with asyncio.timeout(_SEND_SECONDS):
            await send({"type": "http.response.body", "body": piece, "more_body": True})
    except TimeoutError:
        raise StreamAborted(f"The client read nothing for {_SEND_SECONDS:g} s.") from None


_LONGEST_SHOWN = 100


class NoSuchFile(NotFound):
    """In OpenAI's words, which have no code."""

    def __init__(self, id: str) -> None:
        super().__init__(f"No such File object: {id[:_LONGEST_SHOWN]}", param="id")
        self.error_code = None


class UploadFile:
    """``POST /v1/files`` as an ASGI application: a client that leaves in the middle of its file is not a failure."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope, receive)
        with Listening(scope, receive):
            response = json_response(file_object(await upload(request)))
            await response(scope, receive, send)


async def listing(request: Request) -> Response:
    """``GET /v1/files?purpose=&after=&limit=&order=``."""
    services = job_services(request)
    query = read_list_query(request.query_params, exchange_of(request).caller.owner)
    page: list[File] = []
    more = False
    if query.after is None or NAME.fullmatch(query.after):
        page, more = await file_rows.page(services.store, query, services.queue.clock())
    return list_response([file_object(file) for file in page], more=more)


async def retrieve(request: Request) -> Response:
    """``GET /v1/files/{id}``."""
    return json_response(file_object(await _file(request)))


async def content(request: Request) -> Download:
    """``GET /v1/files/{id}/content``."""
    return Download(job_services(request).blobs, await _file(request))


async def delete(request: Request) -> Response:
    """``DELETE /v1/files/{id}``. A batch that has not read it yet still can."""
    services, id = job_services(request), _id(request)
    file_of_caller = file_rows.of_caller(id, exchange_of(request).caller.owner, services.queue.clock())
    deleted, needed = await file_rows.remove(services.store, file_of_caller, 1)
    if not deleted:
        raise NoSuchFile(id)
    if id not in needed:
        await services.blobs.delete(id)
    return json_response({"id": id, "object": "file", "deleted": True})


async def _file(request: Request) -> File:
    services, id = job_services(request), _id(request)
    file = await file_rows.get(services.store, id, exchange_of(request).caller.owner, services.queue.clock())
    if file is None:
        raise NoSuchFile(id)
    return file


def _id(request: Request) -> str:
    """Raises ``NoSuchFile`` for what cannot be an id: not every database takes every text."""
    id: str = request.path_params["id"]
    if not NAME.fullmatch(id):
        raise NoSuchFile(id)
    return id
