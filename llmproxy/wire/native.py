"""The answers of Ollama's own API: NDJSON lines, the last of which says ``done`` and carries the counts."""

from collections.abc import Sequence
from typing import Any

import orjson

from llmproxy.wire.deltas import Deltas
from llmproxy.wire.dialect import Document, Fault, Malformed
from llmproxy.wire.documents import parse, read_leniently, tokens
from llmproxy.wire.done import DONE_REASONS, says_done
from llmproxy.wire.embeddings import is_vector
from llmproxy.wire.exchange import Usage
from llmproxy.wire.ndjson import NdjsonSplitter
from llmproxy.wire.plain import PlainDialect
from llmproxy.wire.vocabulary import Reason

#: reasons to be done without having generated anything: the request loaded or unloaded the model
_HOUSEKEEPING = ("load", "unload")


class _Lines:
    """The half of a dialect that chat and generate share."""

    __slots__ = ()

    both: bool = False
    stream_type: bytes = b"application/x-ndjson"
    said: str
    said_type: type

    def splitter(self) -> NdjsonSplitter:
        return NdjsonSplitter()

    def terminal(self, frame: bytes) -> bool:
        if b'"done"' not in frame or b"true" not in frame:
            return False
        line = read_leniently(frame)
        return line is not None and line.get("done") is True

    def finished(self, frames: Sequence[bytes]) -> bool:
        """Ollama ends a generation that repeats itself without a word: what came is all there is."""
        return bool(frames)

    def fault(self, frame: bytes) -> Fault | None:
        if b'"error"' not in frame:
            return None
        line = read_leniently(frame)
        return Fault(line["error"], frame) if line is not None and line.get("error") else None

    def usage_only(self, frame: bytes) -> bool:
        return False

    def render(self, document: Document) -> list[bytes]:
        return [orjson.dumps(document) + b"\n"]

    def flaw(self, document: Document) -> Reason | None:
        if document.get("error") is not None:
            return Reason.ERROR
        if document.get("done_reason") in _HOUSEKEEPING:
            return Reason.SIDE_EFFECT
        if not isinstance(document.get(self.said), self.said_type):
            return Reason.MALFORMED
        # servers older than the member do not have it
        told = document.get("done_reason") in (None, "") or says_done(document["done_reason"], DONE_REASONS)
        return None if document.get("done") is True and told else Reason.INCOMPLETE

    def usage(self, document: Document) -> Usage:
        return tokens(document, "prompt_eval_count", "eval_count")

    def failure(self, message: str, code: str, type: str) -> bytes:
        return orjson.dumps({"error": message}) + b"\n"


class _OllamaChat(_Lines):
    __slots__ = ()

    name: str = "ollama-chat"
    said: str = "message"
    said_type: type = dict

    def assemble(self, frames: Sequence[bytes]) -> Document:
        lines = Deltas()
        message = Deltas(joined=frozenset({"content", "thinking"}), settled=frozenset({"role"}))
        for line in map(parse, frames):
            piece = line.pop("message", None)
            if isinstance(piece, dict):
                message.add(piece)
            lines.add(line)
        return _whole(lines) | ({"message": message.result()} if message else {})


class _OllamaGenerate(_Lines):
    __slots__ = ()

    name: str = "ollama-generate"
    said: str = "response"
    said_type: type = str

    def assemble(self, frames: Sequence[bytes]) -> Document:
        lines = Deltas(joined=frozenset({"response", "thinking"}))
        for line in map(parse, frames):
            lines.add(line)
        return _whole(lines)


class _Vectors(PlainDialect):
    """The half of a dialect that both forms of embeddings share."""

    __slots__ = ()

    stream_type: bytes = b"application/x-ndjson"

    def vectors(self, document: Document) -> list[Any]:
        answers: list[Any] = document[self.answers]
        return answers

    def flaw(self, document: Document) -> Reason | None:
        reason = super().flaw(document)
        if reason is not None:
            return reason
        return None if all(map(is_vector, self.vectors(document))) else Reason.NOT_FLOAT32

    def usage(self, document: Document) -> Usage:
        return tokens(document, "prompt_eval_count", "eval_count")

    def failure(self, message: str, code: str, type: str) -> bytes:
        return orjson.dumps({"error": message}) + b"\n"


class _OllamaEmbed(_Vectors):
    __slots__ = ()

    name: str = "ollama-embed"
    answers: str = "embeddings"


class _OllamaEmbeddings(_Vectors):
    """The older form: one prompt, one vector."""

    __slots__ = ()

    name: str = "ollama-embeddings"
    answers: str = "embedding"

    def vectors(self, document: Document) -> list[Any]:
        return [document[self.answers]]


def only_loads(body: Document, needed: str) -> bool:
    """Whether a request loads or unloads its model, or shows its prompt, and asks for no answer: nothing is in the
    member ``needed``. Ollama answers it with one document, whatever ``stream`` says.

    Go takes names of members in any case. Of several the last one counts, and null leaves it as it is.
    """
    value: object = None
    for name, given in body.items():
        match name.lower():
            case "_debug_render_only" if given is True:
                return True
            case lower if lower == needed and given is not None:
                value = given
    return value in (None, "", [])


def _whole(lines: Deltas) -> Document:
    if not lines:
        raise Malformed("the stream holds no line")
    return lines.result()


OLLAMA_CHAT = _OllamaChat()
OLLAMA_GENERATE = _OllamaGenerate()
OLLAMA_EMBED = _OllamaEmbed()
OLLAMA_EMBEDDINGS = _OllamaEmbeddings()
