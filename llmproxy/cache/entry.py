"""One cached answer, in every rendering it can be given in, and the row it is stored in. Pure."""

import hashlib
import struct
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field

import orjson
import zstandard

from llmproxy.wire.headers import sendable
from llmproxy.wire.records import record


@record
class Position:
    """How far the flush log had been read when an answer was begun: later flushes came after it.

    An order by numbers, because clocks are set while answers are made.
    """

    #: flushes that this process had carried out
    epoch: int
    #: which database it was, and the last line of its log
    generation: int
    number: int
    #: monotonic seconds
    at: float


@record
class Entry:
    """A complete answer. Times are Unix seconds.

    ``document`` is the plain answer: a JSON object or list (rerank), or a text (transcriptions). ``frames`` is the
    stream's transcript (SSE or NDJSON, terminal event included), empty for an answer that came plain. ``ends`` are the
    end offsets of the frames in ``frames`` and ``millis`` the milliseconds since the call began at which each arrived;
    ``hidden`` are start and end of each frame that only a caller who asked for usage gets, or of them all if the
    others' frames are not among them. All three are native ``array('I')`` bytes, a tenth of tuples. ``both`` is whether
    it serves callers of the other form than the one in which it came.
    """

    key: bytes
    operation: str
    model: str
    scope: str
    namespace: str
    tags: tuple[str, ...]
    created: float
    expires: float
    document: bytes
    frames: bytes = b""
    ends: bytes = b""
    millis: bytes = b""
    hidden: bytes = b""
    headers: tuple[tuple[bytes, bytes], ...] = ()
    upstream_seconds: float = 0.0
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    both: bool = True
    #: where its call began, until it is written; None where no flush can have come since
    begun: Position | None = field(default=None, compare=False, repr=False)

    def begun_at(self, begun: Position) -> "Entry":
        """The same entry, with where its call began."""
        # by hand: ``dataclasses.replace`` takes 10 us, as long as a look-up
        return Entry(
            self.key,
            self.operation,
            self.model,
            self.scope,
            self.namespace,
            self.tags,
            self.created,
            self.expires,
            self.document,
            self.frames,
            self.ends,
            self.millis,
            self.hidden,
            self.headers,
            self.upstream_seconds,
            self.prompt_tokens,
            self.completion_tokens,
            self.both,
            begun,
        )

    @property
    def size(self) -> int:
        """Bytes that count against the tiers' bounds."""
        return len(self.document) + len(self.frames) + len(self.ends) + len(self.millis) + len(self.hidden)


#: version of the body's form. An entry's offsets are in the machine's byte order, so the other order is another form
FORMAT = 3 if sys.byteorder == "little" else 4

#: longest text in a row, in bytes: PostgreSQL indexes no more than 2704 bytes of a row
_TEXT_BYTES = 512
_TAGS_BYTES = 1024

_PLAIN, _ZSTD = b"p", b"z"
_LEVEL = 3
#: byte lengths of the header, document, frames and ends; the rest is millis
_LENGTHS = struct.Struct("<IIIII")


class Unstorable(ValueError):
    """An entry that no row can hold: a text that is too long or that databases refuse."""


class Broken(ValueError):
    """A row that differs from what was stored."""


@dataclass(frozen=True, slots=True)
class Packed:
    """The part of a row that is read: the body holds the whole entry but for its key."""

    key: bytes
    digest: bytes
    format: int
    body: bytes


class Packer:
    """Writes rows, one at a time: the compressor is kept, because making one costs five times a small body."""

    def __init__(self, compress_from: int) -> None:
        """From ``compress_from`` bytes on a body is compressed."""
        self._compress_from = compress_from
        self._zstd = zstandard.ZstdCompressor(level=_LEVEL)

    def pack(self, entry: Entry) -> Packed:
        """``entry`` in stored form. Raises ``Unstorable``."""
        _check(entry)
        head = orjson.dumps(
            (
                (entry.operation, entry.model, entry.scope, entry.namespace, entry.tags),
                (entry.created, entry.expires, entry.upstream_seconds),
                (entry.prompt_tokens, entry.completion_tokens),
                [(name.decode("latin-1"), value.decode("latin-1")) for name, value in entry.headers],
                entry.both,
            )
        )
        parts = (head, entry.document, entry.frames, entry.ends, entry.millis)
        lengths = _LENGTHS.pack(*map(len, parts))
        body = b"".join((lengths, *parts, entry.hidden))
        body = _ZSTD + self._zstd.compress(body) if len(body) >= self._compress_from else _PLAIN + body
        return Packed(entry.key, _digest(entry.key, FORMAT, body), FORMAT, body)


class Unpacker:
    """Reads rows, one at a time, with a decompressor that is kept."""

    def __init__(self) -> None:
        self._zstd = zstandard.ZstdDecompressor()

    def unpack(self, packed: Packed) -> Entry:
        """The entry that was packed. Raises ``Broken`` where a single byte differs."""
        if packed.format != FORMAT or _digest(packed.key, packed.format, packed.body) != packed.digest:
            raise Broken("the digest does not match")
        mark, body = packed.body[:1], packed.body[1:]
        if mark == _ZSTD:
            body = self._zstd.decompress(body)
        head, document, frames, ends, millis = _LENGTHS.unpack_from(body)
        head += _LENGTHS.size
        document += head
        frames += document
        ends += frames
        millis += ends
        texts, times, tokens, headers, both = orjson.loads(body[_LENGTHS.size : head])
        operation, model, scope, namespace, tags = texts
        created, expires, upstream_seconds = times
        prompt_tokens, completion_tokens = tokens
        return Entry(
            key=packed.key,
            operation=operation,
            model=model,
            scope=scope,
            namespace=namespace,
            tags=tuple(tags),
            created=created,
            expires=expires,
            document=body[head:document],
            frames=body[document:frames],
            ends=body[frames:ends],
            millis=body[ends:millis],
            hidden=body[millis:],
            # an entry of an earlier version may hold what cannot be sent
            headers=tuple(sendable((name.encode("latin-1"), value.encode("latin-1")) for name, value in headers)),
            upstream_seconds=upstream_seconds,
            prompt_tokens=prompt_tokens,
            completion_tokens=completion_tokens,
            both=both,
        )


def tag_text(tags: Sequence[str]) -> str:
    """Tags as a column: each between line feeds, so that one can be searched for as a whole."""
    return "\n" + "\n".join(tags) + "\n" if tags else ""


def _check(entry: Entry) -> None:
    """The texts that become columns, to be searched by."""
    if any("\n" in tag for tag in entry.tags):
        raise Unstorable("a tag holds a line feed")
    tags = tag_text(entry.tags)
    for text in (entry.operation, entry.model, entry.scope, entry.namespace, tags):
        try:
            size = len(text.encode())
        except UnicodeEncodeError as error:
            raise Unstorable("a text holds half a character") from error
        if size > (_TAGS_BYTES if text is tags else _TEXT_BYTES) or "\0" in text:
            raise Unstorable("a text is too long, or holds a NUL")


def _digest(key: bytes, format: int, body: bytes) -> bytes:
    """Over everything that is served."""
    digest = hashlib.blake2b(key, digest_size=16, person=b"llmproxy %d" % format)
    digest.update(body)
    return digest.digest()
