"""What a caller asks for: the body parsed once, and a memo that keeps a repeat from being parsed again."""

from collections.abc import Mapping
from dataclasses import field
from hashlib import blake2b, sha256
from typing import Any

import orjson
from cachetools import LRUCache

from llmproxy.cache.key import key_of
from llmproxy.cache.policy import RequestTraits
from llmproxy.proxy.offload import offload
from llmproxy.upstream.headers import Peer
from llmproxy.wire.cache_headers import Directives
from llmproxy.wire.documents import dump
from llmproxy.wire.echo import echo_of
from llmproxy.wire.endpoints import Endpoint, shaping
from llmproxy.wire.errors import UnreadableBody
from llmproxy.wire.formats.embeddings import INPUT_BY_INPUT, is_per_input, other_numbers
from llmproxy.wire.formats.ollama import only_loads
from llmproxy.wire.json_body import canonical, parse
from llmproxy.wire.records import record

_MEMO_SIZE = 10_000
#: a draft that holds on to more of its body than this is not remembered
_MEMO_BYTES = 4096


#: members of any endpoint's body that say how the request is dealt with
_READ = frozenset(
    {
        *("dimensions", "documents", "encoding_format", "format", "images", "input", "keep_alive", "messages", "model"),
        *("options", "prompt", "query", "raw", "seed", "stream", "stream_options", "suffix", "system", "temperature"),
        *("template", "texts", "think", "tools", "truncate"),
    }
)


@record
class ParsedBody:
    """All that the cache needs to know of a body. ``digest`` is that of its canonical form."""

    model: str
    stream: bool
    include_usage: bool
    user: str
    traits: RequestTraits
    digest: bytes
    #: the same without what differs from input to input; b"" where answers are not kept input by input
    each: bytes = b""
    #: whether it asks for no answer, but loads or unloads its model
    load: bool = False
    #: what the answer repeats of it
    echo: Mapping[str, Any] | None = None
    #: for a server that takes the names of members in any case: whether it is a stream. None where all are spelt right
    any_case_stream: bool | None = None
    #: whether it says that its answer shall be one that can be asked for again
    store: bool = False
    #: how many choices it asks for
    choices: int = 1
    #: what history shows in the place of a body that is not JSON: its members; b"" for the body itself
    described: bytes = b""


@record
class CacheableRequest:
    """One request to a cached endpoint."""

    endpoint: Endpoint
    parsed: ParsedBody
    directives: Directives
    raw: bytes
    #: raw path and query, as the client sent them
    target: bytes
    headers: list[tuple[bytes, bytes]]
    peer: Peer
    #: whether the server reads members of it that are spelt in another case than they are read here (``Model``)
    any_case: bool = False
    #: the JSON of the body if it was parsed just now; it is not to be changed
    document: dict[str, Any] | None = None
    #: of the target, decoded as far as it has to be to compare it
    path: str = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "path", self.target.partition(b"?")[0].decode("latin-1"))

    def body(self) -> dict[str, Any]:
        """The JSON of the body, not to be changed."""
        return parse(self.raw) if self.document is None else self.document

    @property
    def digest(self) -> bytes:
        """Of all that the client asked: the body, and a query where there is one."""
        query = self.target.partition(b"?")[2]
        return sha256(self.parsed.digest + query).digest() if query else self.parsed.digest

    @property
    def each(self) -> bytes:
        """Of what each input of the request has in common with the others; b"" where they are not kept one by one."""
        query = self.target.partition(b"?")[2]
        return sha256(self.parsed.each + query).digest() if query and self.parsed.each else self.parsed.each

    def question_key(self, scope: str) -> bytes:
        """The same for the same request, whatever stands behind the model's name."""
        return key_of(self.endpoint.name, "", scope, self.directives.namespace, self.digest)


class BodyMemo:
    """Exact bytes of a body -> its draft. Bounded in entries, and each of them in what callers chose of it."""

    def __init__(self, size: int = _MEMO_SIZE) -> None:
        self._parsed: LRUCache[bytes, ParsedBody] = LRUCache(size)

    async def parsed(self, endpoint: Endpoint, raw: bytes, content_type: bytes = b"") -> ParsedBody:
        """``content_type`` is needed only for a body that is not JSON.

        Raises ``UnreadableBody`` for what does not have the endpoint's form; such a body leaves no trace.
        """
        return (await self.read(endpoint, raw, content_type))[0]

    async def read(
        self, endpoint: Endpoint, raw: bytes, content_type: bytes = b""
    ) -> tuple[ParsedBody, dict[str, Any] | None]:
        """The same, with the JSON of a body that was not known."""
        token = await offload(len(raw), _token, endpoint, raw, content_type)
        remembered = self._parsed.get(token)
        if remembered is not None:
            return remembered, None
        parsed, held, document = await offload(len(raw), _read, endpoint, raw, content_type)
        if held <= _MEMO_BYTES:
            self._parsed[token] = parsed
        return parsed, document if endpoint.dialect.json_requests else None


def _token(endpoint: Endpoint, raw: bytes, content_type: bytes) -> bytes:
    digest = blake2b(raw, digest_size=16, person=endpoint.name.encode()[:16])
    digest.update(content_type)
    return digest.digest()


def _read(endpoint: Endpoint, raw: bytes, content_type: bytes) -> tuple[ParsedBody, int, dict[str, Any]]:
    """What is known of a body, how many bytes that holds on to, and the members of the body."""
    body = endpoint.dialect.read_request(raw, content_type)
    parsed = read_body(endpoint, body)
    held = len(parsed.model) + len(parsed.user) + len(parsed.described)
    return parsed, held if parsed.echo is None else held + len(orjson.dumps(parsed.echo)), body


def read_body(endpoint: Endpoint, body: dict[str, Any]) -> ParsedBody:
    """Raises ``UnreadableBody``, ``BadRequest`` for a form that nobody can read."""
    others = {folded: value for name, value in body.items() if (folded := name.casefold()) != name and folded in _READ}
    model = body.get("model", others.get("model"))
    if model is not None and not isinstance(model, str):
        raise UnreadableBody("'model' must be a string.", param="model")
    stream = _named(body, "stream") if endpoint.streams_by_default else body.get("stream")
    if stream is None or not endpoint.streams:
        stream = endpoint.streams_by_default
    elif not isinstance(stream, bool):
        raise UnreadableBody("'stream' must be a boolean.", param="stream")
    load = bool(endpoint.needs) and only_loads({**others, **body}, endpoint.needs)
    options = body.get("stream_options")
    if options is not None and not isinstance(options, dict):
        raise UnreadableBody("'stream_options' must be an object.", param="stream_options")
    include_usage = options.get("include_usage") if options else None
    if include_usage is not None and not isinstance(include_usage, bool):
        raise UnreadableBody("'include_usage' must be a boolean.", param="stream_options.include_usage")
    user = body.get("user")
    # what is excused from the key is sent on all the same: it must be possible to write it
    canonical({name: body[name] for name in endpoint.excused if name in body}, ())
    # where a stream is another entry, saying what is so anyway makes no difference
    keyed = {**body, "stream": stream} if endpoint.streams else body
    excused = set(endpoint.excused)
    if "stream_options" in excused and (shape := shaping(options)):
        keyed["stream_options"] = shape
        excused.remove("stream_options")
    return ParsedBody(
        model=model or "",
        stream=stream and not load,
        load=load,
        include_usage=bool(include_usage),
        user=user if isinstance(user, str) else "",
        traits=RequestTraits(
            deterministic=_deterministic(body),
            side_effect=any(body.get(name) for name in endpoint.side_effects),
            other_numbers=endpoint.per_input and other_numbers(body),
        ),
        digest=sha256(canonical(keyed, excused - INPUT_BY_INPUT)).digest(),
        each=sha256(canonical(keyed, excused)).digest() if endpoint.per_input and is_per_input(body) else b"",
        echo=echo_of(body) if endpoint.echoes else None,
        store=body.get("store") is True,
        choices=_choices(body),
        described=b"" if endpoint.dialect.json_requests else dump(body),
        any_case_stream=others.get("stream", stream) is True and not load if others else None,
    )


def _choices(body: dict[str, Any]) -> int:
    """``n`` for each prompt of a list; a list of numbers is one prompt, in tokens."""
    n, prompt = body.get("n"), body.get("prompt")
    prompts = sum(not isinstance(each, int) for each in prompt) if isinstance(prompt, list) else 1
    return max(1, n if isinstance(n, int) else 1) * max(1, prompts)


def _named(body: dict[str, Any], name: str) -> Any:
    """A member as Ollama reads it: Go takes names in any case, of several the last, and of null no notice."""
    return next((value for key, value in reversed(body.items()) if key.lower() == name and value is not None), None)


def _deterministic(body: dict[str, Any]) -> bool:
    """Temperature 0, or an explicit seed; Ollama's own API has them under ``options``."""
    options = body.get("options")
    for fields in (body, options if isinstance(options, dict) else {}):
        seed = fields.get("seed")
        if fields.get("temperature") == 0 or (isinstance(seed, int) and not isinstance(seed, bool) and seed >= 0):
            return True
    return False
