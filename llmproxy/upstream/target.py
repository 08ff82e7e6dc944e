"""A model server, one call to it, and its reply."""

from base64 import b64encode
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, NamedTuple, Protocol, Self
from urllib.parse import unquote_to_bytes, urlsplit

from llmproxy.config.settings import Settings
from llmproxy.wire.headers import HeaderList
from llmproxy.wire.records import record

#: where a scheme's servers listen unless said otherwise
_PORTS = {"http": 80, "https": 443}

Document = dict[str, Any]


@record
class Call:
    """One request upstream. ``target`` is the raw path and query as the client sent them, never re-encoded."""

    method: str
    target: bytes
    headers: HeaderList
    body: bytes | AsyncIterator[bytes] = b""


class Reply(Protocol):
    """An upstream's answer whose head has arrived. ``headers`` have lower-case names, hop-by-hop ones removed."""

    status: int
    headers: HeaderList
    #: whether a connection was opened for this call, so that another process than before may have answered
    fresh: bool
    #: whether the body tells where it ends, by its length or its chunks, so that a cut one is noticed
    delimited: bool

    def chunks(self) -> AsyncIterator[bytes]:
        """The body as it arrives. Raises ``UpstreamBroke`` or ``UpstreamSlow``."""
        ...

    async def read(self, limit: int) -> bytes:
        """The whole body, at most ``limit`` bytes of it."""
        ...

    async def aclose(self) -> None:
        """Ends the call: upstream stops working on it. Safe to call twice, and after the end."""
        ...


#: takes one upstream frame, gives the frames that stand for it
Repair = Callable[[bytes], list[bytes]]


@record
class Adapted:
    """What is sent upstream for a request, and how its answer is read.

    ``body`` is the JSON to send, ``stream`` whether the answer will come as a stream (asked for or not), ``repair``
    what mends the frames of a stream that SDKs cannot read, ``both`` whether a plain answer and a stream may be made of
    each other. ``path`` is another path of the server than the caller's, None for the same.
    """

    body: bytes
    stream: bool
    repair: Repair | None = None
    headers: HeaderList = field(default_factory=list)
    both: bool = True
    path: bytes | None = None


#: GETs a path: the JSON of a 200 answer, None for any other answer. Raises ``UpstreamError``.
Fetch = Callable[[str], Awaitable[Any]]


@dataclass(frozen=True, slots=True)
class ServerInfo:
    """What a model server said of itself.

    ``models`` are the entries of its list in OpenAI's shape; ``identities`` what stands behind each name in its
    canonical form: a hex sha256, or the name where the server does not tell. A colon and what follows it make an
    identity more precise: what the server tells only now and then. ``default`` is what answers to any other name, None
    if nothing does. ``slots`` is how many calls it works on at once, None where it does not tell.
    """

    models: tuple[Document, ...]
    identities: Mapping[str, str]
    default: str | None = None
    slots: int | None = None
    #: the canonical names of models that make embeddings and no text, where the server tells
    embedders: frozenset[str] = frozenset()
    #: what is odd about it, for the operator: "" if nothing is
    warning: str = ""


#: identities by canonical name
Identities = Mapping[str, str]

NOTHING_KNOWN: Identities = MappingProxyType({})


class Kind(Protocol):
    """The ways of one sort of model server."""

    name: str
    #: whether it tells what stands behind a name; where not, the name is all that tells models apart
    tells: bool
    #: the beginning of the paths that are this kind's own, "" where it has none
    own_paths: str
    #: whether it takes the names of JSON members in any case, as Go's decoder does
    any_case: bool
    #: whether it keeps a stream for a client that names it (``x-conversation-id``)
    resumes: bool

    async def read(self, fetch: Fetch, previous: Identities = NOTHING_KNOWN) -> ServerInfo | None:
        """What the server says of itself; None if it is of another kind. Raises ``UpstreamError``.

        ``previous`` is what this server said before. Nothing that is asked may load a model or wake a sleeping one.
        """
        ...

    def canonical(self, model: str) -> str:
        """The name under which the server lists what it knows by this name."""
        ...

    def adapt(self, endpoint: str, body: Document, stream: bool, settings: Settings) -> Adapted:
        """What to send for ``body``, a request to an endpoint (a name in ``wire.endpoints``)."""
        ...


class Address(NamedTuple):
    """Where a server listens."""

    host: str
    port: int
    tls: bool
    #: host and port as the server's clients write them
    authority: bytes

    @classmethod
    def of(cls, url: str) -> Self:
        """Raises ``ValueError`` for what is no URL of a server that speaks HTTP."""
        parts = urlsplit(url)
        if parts.scheme not in _PORTS or not parts.hostname:
            raise ValueError(f"{url!r} is no http or https URL")
        host = parts.hostname if parts.hostname.isascii() else parts.hostname.encode("idna").decode()
        usual, authority = _PORTS[parts.scheme], f"[{host}]" if ":" in host else host
        port = usual if parts.port is None else parts.port
        return cls(
            host, port, parts.scheme == "https", (authority if port == usual else f"{authority}:{port}").encode()
        )


@dataclass(frozen=True, slots=True, eq=False)
class Target:
    """One model server. ``name`` is its base URL without credentials, ``address`` and ``prefix`` are that URL's halves.

    ``authorization`` is what the URL's credentials amount to, None where it has none.
    """

    name: str
    kind: Kind
    address: Address
    prefix: bytes = b""
    authorization: bytes | None = None

    @classmethod
    def at(cls, url: str, kind: Kind) -> Self:
        """The target at a base URL, like ``http://127.0.0.1:8080``."""
        parts = urlsplit(url)
        credentials, at, host = parts.netloc.rpartition("@")
        path = parts.path.rstrip("/")
        basic = b"Basic " + b64encode(unquote_to_bytes(credentials)) if at else None
        origin = f"{parts.scheme}://{host}"
        return cls(origin + path, kind, Address.of(origin), path.encode(), basic)

    def adapt(self, endpoint: str, body: Document, stream: bool, settings: Settings) -> Adapted:
        """What to send for a request; see ``Kind.adapt``."""
        return self.kind.adapt(endpoint, body, stream, settings)


#: a list longer than this is not read to its end
_MOST_MODELS = 2000


def listed(document: Any) -> tuple[Document, ...]:
    """The entries of a list of models in OpenAI's shape, each with an id; () for anything else."""
    data = document.get("data") if isinstance(document, dict) else None
    if not isinstance(data, list):
        return ()
    return tuple(
        {"object": "model", "created": 0, "owned_by": "", **entry}
        for entry in data[:_MOST_MODELS]
        if isinstance(entry, dict) and isinstance(entry.get("id"), str) and entry["id"]
    )


_COUNTED = frozenset({"chat", "completions"})


def with_usage(endpoint: str, body: Document) -> Document:
    """A streamed chat or completions request that asks for usage, whether the caller did or not."""
    if endpoint not in _COUNTED:
        return body
    options = body.get("stream_options")
    if options is None:
        options = {}
    if not isinstance(options, dict) or options.get("include_usage"):
        # asked for already, or the upstream's to refuse
        return body
    return body | {"stream_options": options | {"include_usage": True}}
