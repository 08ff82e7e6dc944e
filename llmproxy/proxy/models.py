"""Lists of models, in OpenAI's shape and in Ollama's: one server's as it is, of several the union; and one of its rows.

What a server answers by itself is passed on as it is. A list is put together only from several, or from what was read
before of a server that is down.
"""

import asyncio
from collections.abc import Sequence
from typing import Any
from urllib.parse import quote

import orjson
from starlette.types import Receive, Scope, Send

from llmproxy.proxy.asgi import peer_of, raw_target
from llmproxy.proxy.endpoint import PASS_THROUGH
from llmproxy.proxy.model_name import LISTS, in_path
from llmproxy.proxy.services import ProxyServices
from llmproxy.upstream.headers import credentials, forwarded, relayed
from llmproxy.upstream.target import Call, Document, Target
from llmproxy.upstream.upstreams import no_such_model
from llmproxy.wire.errors import UpstreamError
from llmproxy.wire.exchange import EXCHANGE, Exchange
from llmproxy.wire.headers import HeaderList

#: Ollama's own: what there is, and what is loaded
OLLAMA_LISTS = ("/api/tags", "/api/ps")

_LONGEST_DOCUMENT = 16 * 1024 * 1024
#: what a server answers that has no page for a model by itself
_NO_PAGE = frozenset({404, 405, 501})
#: what names an entry of a list, whichever of them it has
_NAMES = ("id", "name", "model")
_JSON: HeaderList = [(b"content-type", b"application/json")]


class ListReply:
    """What one server answered."""

    def __init__(self, status: int, headers: HeaderList, body: bytes) -> None:
        self.status = status
        self.headers = headers
        self.body = body

    @property
    def is_json(self) -> bool:
        return any(name == b"content-type" and b"json" in value for name, value in self.headers)

    def document(self) -> Document | None:
        """The list in it, None for anything else."""
        if self.status != 200:
            return None
        try:
            document = orjson.loads(self.body)
        except orjson.JSONDecodeError:
            return None
        return document if isinstance(document, dict) else None


class Models:
    """Answers GET and HEAD; whatever else is asked of these paths is passed through."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        services: ProxyServices = scope["state"]["services"]
        alone = scope["path"] in OLLAMA_LISTS and len(services.upstreams.targets_for(scope["path"])) < 2
        if scope["method"] not in ("GET", "HEAD") or alone:
            await PASS_THROUGH(scope, receive, send)
            return
        exchange: Exchange = scope[EXCHANGE]
        exchange.endpoint = "models"
        name = in_path(raw_target(scope))
        reply = await _one(scope, name) if name else await _all(scope)
        headers = [header for header in relayed(reply.headers) if header[0] != b"content-length"]
        headers.append((b"content-length", b"%d" % len(reply.body)))
        if not name and scope["path"] in LISTS:
            # what is taken for a request without a model: the list may begin with one that only makes embeddings
            headers.append((b"x-llmproxy-default-model", quote(services.upstreams.first_model).encode()))
            if embedding := services.upstreams.embedding_models:
                headers.append((b"x-llmproxy-embedding-models", ",".join(map(quote, embedding)).encode()))
        exchange.status = reply.status
        await send({"type": "http.response.start", "status": reply.status, "headers": headers})
        await send({"type": "http.response.body", "body": b"" if scope["method"] == "HEAD" else reply.body})


async def _all(scope: Scope) -> ListReply:
    """Raises ``UpstreamError`` where there are servers and none has anything to say."""
    services: ProxyServices = scope["state"]["services"]
    path: str = scope["path"]
    # who asks for the list wants to know what is there now: what is known of the servers is read anew with it
    known = await services.upstreams.models(credentials(scope["headers"], services.settings))
    targets = services.upstreams.targets_for(path)
    answers = await asyncio.gather(*(_fetch_list(scope, target) for target in targets))
    replies = [answer for answer in answers if isinstance(answer, ListReply)]
    if len(answers) == 1 and replies:
        return replies[0]
    documents = []
    for target, answer in zip(targets, answers, strict=True):
        if isinstance(answer, ListReply):
            documents.append(answer.document())
        elif path in LISTS and (listed := services.upstreams.listed(target)):
            documents.append({"object": "list", "data": list(listed)})
    if found := [document for document in documents if document is not None]:
        return ListReply(200, _JSON, orjson.dumps(_union(found)))
    if replies:
        return replies[0]
    for answer in answers:
        if isinstance(answer, UpstreamError):
            raise answer
    return ListReply(200, _JSON, orjson.dumps(known))


async def _one(scope: Scope, name: str) -> ListReply:
    """Raises ``NotFound``, ``UpstreamError``."""
    services: ProxyServices = scope["state"]["services"]
    path: str = scope["path"]
    targets = services.upstreams.with_model(name, path)
    if not targets or _listed(services, targets, name) is None:
        await services.upstreams.models(credentials(scope["headers"], services.settings))
        # a server may have a page of one that it does not list
        targets = services.upstreams.with_model(name, path) or services.upstreams.targets_for(path)
    answers = await asyncio.gather(*(_fetch_list(scope, target) for target in targets))
    replies = [answer for answer in answers if isinstance(answer, ListReply)]
    for reply in sorted(replies, key=lambda reply: reply.status != 200):
        if reply.status not in _NO_PAGE:
            return reply
    # the server has no such pages, or is down
    if (model := _listed(services, targets, name)) is not None:
        return ListReply(200, _JSON, orjson.dumps(model))
    for answer in answers:
        if isinstance(answer, UpstreamError):
            raise answer
        if name.encode() in answer.body and answer.is_json:
            # it does not say that there is no such path, but that there is no such model
            return answer
    raise no_such_model(name)


def _listed(services: ProxyServices, targets: Sequence[Target], name: str) -> Document | None:
    """The list's entry with this name in any of its spellings."""
    for target in targets:
        canonical = target.kind.canonical
        for model in services.upstreams.listed(target):
            aliases = model.get("aliases")
            names = [model["id"], *(aliases if isinstance(aliases, list) else ())]
            if canonical(name) in [canonical(one) for one in names if isinstance(one, str)]:
                return model
    return None


async def _fetch_list(scope: Scope, target: Target) -> ListReply | UpstreamError:
    services: ProxyServices = scope["state"]["services"]
    # a HEAD of a list is a GET without its body: not every server knows it there
    headers = forwarded(scope["headers"], services.settings, peer_of(scope), trace=scope[EXCHANGE].trace)
    try:
        reply = await services.upstreams.send(target, Call("GET", raw_target(scope), headers))
        services.accepted.note_refusal(target.name, scope[EXCHANGE].caller.credential, reply.status)
        try:
            return ListReply(reply.status, reply.headers, await reply.read(_LONGEST_DOCUMENT))
        finally:
            await reply.aclose()
    except UpstreamError as error:
        return error


def _union(documents: Sequence[Document]) -> Document:
    """The members of all of them. Entries of lists with the same name are one: the first."""
    whole: Document = {}
    for document in documents:
        for member, value in document.items():
            mine = whole.get(member)
            if isinstance(value, list):
                whole[member] = _joined(mine if isinstance(mine, list) else [], value)
            else:
                whole.setdefault(member, value)
    return whole


def _joined(some: list[Any], more: list[Any]) -> list[Any]:
    known = {_named(entry) for entry in some}
    return [*some, *(entry for entry in more if _named(entry) is None or _named(entry) not in known)]


def _named(entry: Any) -> str | None:
    names = (entry.get(name) for name in _NAMES) if isinstance(entry, dict) else ()
    return next((name for name in names if isinstance(name, str)), None)
