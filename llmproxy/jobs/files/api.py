"""OpenAI's Files: each caller sees the files of their own scope."""

from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from llmproxy.jobs.files import store
from llmproxy.jobs.files.blocking import NAME
from llmproxy.jobs.files.document import File, document
from llmproxy.jobs.files.download import Download
from llmproxy.jobs.files.params import asked_list
from llmproxy.jobs.files.store import FileQuery
from llmproxy.jobs.files.upload import upload
from llmproxy.jobs.json_response import page, rendered
from llmproxy.jobs.services import exchange_of, job_services
from llmproxy.proxy.endpoint import listening
from llmproxy.wire.errors import NotFound

_LONGEST_SHOWN = 100


class NoSuchFile(NotFound):
    """In OpenAI's words, which have no code."""

    def __init__(self, id: str) -> None:
        super().__init__(f"No such File object: {id[:_LONGEST_SHOWN]}", param="id")
        self.error_code = None


class UploadFile:
    """``POST /v1/files`` as an ASGI application: a client that leaves in the middle of its file is no failure."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope, receive)
        with listening(receive, exchange_of(request)):
            response = rendered(document(await upload(request)))
            await response(scope, receive, send)


async def listing(request: Request) -> Response:
    """``GET /v1/files?purpose=&after=&limit=&order=``."""
    services, asked = job_services(request), asked_list(request.query_params)
    found: list[File] = []
    more = False
    if asked.after is None or NAME.fullmatch(asked.after):
        scope = exchange_of(request).caller.owner
        wanted = FileQuery(scope, asked.purpose, asked.after, asked.limit, asked.newest_first)
        found, more = await store.page(services.store, wanted, services.queue.clock())
    return page([document(file) for file in found], more=more)


async def retrieve(request: Request) -> Response:
    """``GET /v1/files/{id}``."""
    return rendered(document(await _file(request)))


async def content(request: Request) -> Download:
    """``GET /v1/files/{id}/content``."""
    return Download(job_services(request).blobs, await _file(request))


async def delete(request: Request) -> Response:
    """``DELETE /v1/files/{id}``. A batch that has not read it yet still can."""
    services, id = job_services(request), _id(request)
    mine = store.of_caller(id, exchange_of(request).caller.owner, services.queue.clock())
    deleted, needed = await store.remove(services.store, mine, 1)
    if not deleted:
        raise NoSuchFile(id)
    if id not in needed:
        await services.blobs.delete(id)
    return rendered({"id": id, "object": "file", "deleted": True})


async def _file(request: Request) -> File:
    services, id = job_services(request), _id(request)
    file = await store.get(services.store, id, exchange_of(request).caller.owner, services.queue.clock())
    if file is None:
        raise NoSuchFile(id)
    return file


def _id(request: Request) -> str:
    """Raises ``NoSuchFile`` for what can be no id: not every database takes every text."""
    id: str = request.path_params["id"]
    if not NAME.fullmatch(id):
        raise NoSuchFile(id)
    return id
