"""Which model a request names that is passed through: read out of its first bytes, which go on as they came."""

import asyncio
import json
import re
from collections.abc import AsyncIterator, Iterable
from email.message import Message
from typing import Any
from urllib.parse import parse_qs, unquote_to_bytes

import orjson

from llmproxy.wire.headers import content_type
from llmproxy.wire.json_body import BOM

#: where OpenAI's list of models is, with and without the prefix; under it a page for each model
LISTS = ("/v1/models", "/models")

#: A body is looked through this far. A form may have its file, an audio recording, before the model's name.
_MOST_BYTES = 32 * 1024 * 1024
#: a document larger than this is parsed in a thread
_IN_THE_LOOP = 64 * 1024

#: of a part of a form
_LONGEST_HEAD = 8 * 1024

#: A document that begins with the name: nearly all do.
_FIRST = re.compile(rb'\s*\{\s*"model"\s*:\s*("(?:[^"\\]|\\.)*")\s*[,}]')
_FORM_NAME = re.compile(rb'(?i)^content-disposition:[^\r\n]*;\s*name="?model"?\s*(?:;|\r?$)', re.MULTILINE)

#: Members that name a model, first the one that counts most. Ollama copies a ``source``, makes one ``from`` another.
_MEMBERS = ("model",)
_LENIENT = json.JSONDecoder(strict=False)
_OLLAMA_MEMBERS = ("model", "name", "source", "from")


class ReadAheadBody:
    """A request's body whose beginning may have been read ahead. Iterated, it is the whole body."""

    def __init__(self, chunks: AsyncIterator[bytes]) -> None:
        self._chunks = chunks
        self._ahead: list[bytes] = []
        self._size = 0
        self._ended = False

    async def __aiter__(self) -> AsyncIterator[bytes]:
        while self._ahead:
            yield self._ahead.pop(0)
        async for chunk in self._chunks:
            yield chunk

    async def more(self) -> bool:
        """Reads on. False at the end of the body, and where enough was read ahead."""
        if self._size > _MOST_BYTES:
            return False
        try:
            chunk = await anext(self._chunks)
        except StopAsyncIteration:
            self._ended = True
            return False
        self._ahead.append(chunk)
        self._size += len(chunk)
        return True

    @property
    def whole(self) -> bool:
        """Whether all of it was read ahead."""
        return self._ended

    @property
    def is_short(self) -> bool:
        """Whether what was read ahead is little enough to be looked at again and again."""
        return self._size <= _IN_THE_LOOP

    @property
    def latest(self) -> bytes:
        """What was read last."""
        return self._ahead[-1]

    def beginning(self) -> bytes:
        """All that was read ahead."""
        self._ahead = [b"".join(self._ahead)]
        return self._ahead[0]


def in_path(target: bytes) -> str:
    """The model whose page a path is, "" for other paths. ``target`` is raw: an id may hold a slash, percent-encoded by
    newer SDKs and raw by older ones."""
    path = target.partition(b"?")[0]
    for prefix in LISTS:
        if path.startswith(prefix.encode() + b"/"):
            return unquote_to_bytes(path[len(prefix) + 1 :]).decode("utf-8", "replace")
    return ""


async def names_in(
    target: bytes, path: str, headers: Iterable[tuple[bytes, bytes]], body: ReadAheadBody | bytes
) -> list[str]:
    """The names of models in a request, the first being the one that counts most; [] if it names none.

    ``target`` is the raw path and query, ``path`` the decoded one; ``body`` is b"" if there is none.
    """
    kind = content_type(headers).decode("latin-1")
    if isinstance(body, bytes):
        body = ReadAheadBody(_at_once(body))
    if kind.lower().startswith("multipart/"):
        found = await _in_form(kind, body)
    else:
        found = await _in_document(body, _OLLAMA_MEMBERS if path.startswith("/api/") else _MEMBERS)
    request = parse_qs(target.partition(b"?")[2].decode("latin-1")).get("model", [])
    # of llama.cpp's router, POST /models/load: a path like a model's page, whose body names the model
    return found or request or [name for name in [in_path(target)] if name]


async def _at_once(body: bytes) -> AsyncIterator[bytes]:
    if body:
        yield body


async def _in_document(body: ReadAheadBody, members: tuple[str, ...]) -> list[str]:
    while await body.more():
        beginning = body.beginning().removeprefix(BOM) if body.is_short else b""
        if beginning and not beginning.lstrip().startswith(b"{"):
            return []
        if found := _FIRST.match(beginning):
            name = _parsed(found.group(1))
            return [name] if isinstance(name, str) and name else []
    if not body.whole:
        return []
    text = body.beginning()
    document = _parsed(text) if len(text) <= _IN_THE_LOOP else await asyncio.to_thread(_parsed, text)
    if not isinstance(document, dict):
        return []
    # Ollama takes names of members in any case
    folded = {name.casefold(): value for name, value in document.items()} | document
    return [name for member in members if isinstance(name := folded.get(member), str) and name]


def _parsed(text: bytes) -> Any:
    """The JSON in ``text`` as a lenient server reads it, None where there is none."""
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError:
        pass
    try:
        # NaN, half surrogates, raw control characters, and whatever follows
        return _LENIENT.raw_decode(text.decode("utf-8", "replace").lstrip("\ufeff \t\r\n"))[0]
    except (ValueError, RecursionError):
        return None


async def _in_form(content_type: str, body: ReadAheadBody) -> list[str]:
    """Finds the field by its part's head: what looks like one inside a file does not follow a boundary."""
    header = Message()
    header["content-type"] = content_type
    boundary = header.get_param("boundary")
    if not isinstance(boundary, str) or not boundary:
        return []
    mark = b"--" + boundary.encode("latin-1", "replace")
    rest = b""
    while await body.more():
        *parts, rest = (rest + body.latest).split(mark)
        for part in parts:
            head, blank, value = part.partition(b"\r\n\r\n")
            if blank and _FORM_NAME.search(head):
                name = value.removesuffix(b"\r\n").decode("utf-8", "replace").strip()
                return [name] if name else []
        head, blank, _ = rest.partition(b"\r\n\r\n")
        if len(head) > _LONGEST_HEAD or (blank and not _FORM_NAME.search(head)):
            # inside a file: only what may be the beginning of the next boundary matters
            rest = b"\r\n\r\n" + rest[-len(mark) :]
    return []
