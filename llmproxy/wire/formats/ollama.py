"""The answers of Ollama's own API: NDJSON lines, the last of which has ``done`` and the counts."""

from collections.abc import Iterator, Sequence
from typing import Any

from llmproxy.wire.dialect import JsonDialect, Lossy, StreamError, is_final_reason
from llmproxy.wire.documents import Document, Malformed, dump, parse, read_leniently, tokens
from llmproxy.wire.errors import OLLAMA_ERRORS, ProxyError, error_document
from llmproxy.wire.exchange import Usage
from llmproxy.wire.formats.deltas import Deltas
from llmproxy.wire.formats.embeddings import is_vector
from llmproxy.wire.formats.plain import PlainDialect
from llmproxy.wire.framing import NdjsonSplitter
from llmproxy.wire.vocabulary import Reason

#: ``done_reason`` of Ollama's own API
_DONE_REASONS = frozenset({"length", "stop", "tool_calls"})
#: reasons to be done without having generated anything: the request loaded or unloaded the model
_HOUSEKEEPING = ("load", "unload")

#: texts that come in pieces; a generated answer's is its ``response``
_TEXTS = frozenset({"content", "response", "thinking"})
#: members of lines that are not the last: how far an image is
_PROGRESS = frozenset({"completed", "total"})

_JSON = b"application/json; charset=utf-8"


class _OllamaAnswers:
    """What all of Ollama's own answers share."""

    __slots__ = ()

    stream_type: bytes = b"application/x-ndjson"
    document_type: bytes = _JSON

    def usage(self, document: Document) -> Usage:
        return tokens(document, "prompt_eval_count", "eval_count")

    def failure(self, error: ProxyError, request_id: str = "") -> bytes:
        return dump(error_document(OLLAMA_ERRORS, error, request_id)) + b"\n"


class _Lines(_OllamaAnswers, JsonDialect):
    """The half of a dialect that chat and generate share."""

    __slots__ = ()

    both: bool = True
    answer_member: str
    answer_type: type

    def splitter(self) -> NdjsonSplitter:
        return NdjsonSplitter()

    def terminal(self, frame: bytes) -> bool:
        if b'"done"' not in frame or b"true" not in frame:
            return False
        line = read_leniently(frame)
        return line is not None and line.get("done") is True

    def finished(self, frames: Sequence[bytes]) -> bool:
        """Ollama silently ends a generation that repeats itself: the lines so far are all there is."""
        return bool(frames)

    def fault(self, frame: bytes) -> StreamError | None:
        if b'"error"' not in frame:
            return None
        line = read_leniently(frame)
        return StreamError(line["error"], frame) if line is not None and line.get("error") else None

    def flaw(self, document: Document) -> Reason | None:
        if document.get("error") is not None:
            return Reason.ERROR
        if document.get("done_reason") in _HOUSEKEEPING:
            return Reason.SIDE_EFFECT
        if not isinstance(document.get(self.answer_member), self.answer_type):
            return Reason.MALFORMED
        # servers older than the member do not have it
        is_final = document.get("done_reason") in (None, "") or is_final_reason(document["done_reason"], _DONE_REASONS)
        return None if document.get("done") is True and is_final else Reason.INCOMPLETE


class _OllamaChat(_Lines):
    __slots__ = ()

    name: str = "ollama-chat"
    answer_member: str = "message"
    answer_type: type = dict

    def assemble(self, frames: Sequence[bytes]) -> Document:
        ambiguities: list[str] = []
        lines = [parse(frame) for frame in frames]
        messages = [line["message"] for line in lines if isinstance(line.get("message"), dict)]
        document = _merge(lines, frozenset(), frozenset({"logprobs"}), ambiguities)
        if messages:
            document["message"] = _merge(messages, _TEXTS, frozenset({"tool_calls"}), ambiguities)
        return _unambiguous(document, ambiguities)

    def render(self, document: Document) -> list[bytes]:
        message = document.get("message")
        if not isinstance(message, dict):
            raise Malformed("the message is no object")
        calls = {"tool_calls": message["tool_calls"]} if isinstance(message.get("tool_calls"), list) else {}
        pieces = [
            *({"content": "", "thinking": text} for text in _text(message, "thinking")),
            *({"content": text} for text in _text(message, "content")),
            *({"content": "", **calls} for _ in calls),
        ]
        role = {name: message[name] for name in ("role",) if name in message}
        rest = {name: value for name, value in message.items() if name not in (*_TEXTS, *calls)}
        closing = role | {name: "" for name in _TEXTS if name in message} | rest
        return _lines(document, [{"message": role | piece} for piece in pieces], {"message": closing})


class _OllamaGenerate(_Lines):
    __slots__ = ()

    name: str = "ollama-generate"
    answer_member: str = "response"
    answer_type: type = str

    def assemble(self, frames: Sequence[bytes]) -> Document:
        ambiguities: list[str] = []
        lines = [parse(frame) for frame in frames]
        return _unambiguous(_merge(lines, _TEXTS, frozenset({"logprobs"}), ambiguities), ambiguities)

    def render(self, document: Document) -> list[bytes]:
        pieces = [
            *({"response": "", "thinking": text} for text in _text(document, "thinking")),
            *({"response": text} for text in _text(document, "response")),
        ]
        return _lines(document, pieces, {name: "" for name in _TEXTS if name in document})


class _Vectors(_OllamaAnswers, PlainDialect):
    """The half of a dialect that both forms of embeddings share."""

    __slots__ = ()

    def vectors(self, document: Document) -> list[Any]:
        answers: list[Any] = document[self.answers]
        return answers

    def flaw(self, document: Document) -> Reason | None:
        reason = super().flaw(document)
        if reason is not None:
            return reason
        return None if all(map(is_vector, self.vectors(document))) else Reason.NOT_FLOAT32


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
    """Whether a request only loads or unloads its model, or shows its prompt: the member ``needed`` is empty.

    Ollama answers it with one document, whatever ``stream`` says. Go reads member names in any case; of several the
    last one counts, and null changes nothing.
    """
    value: object = None
    for name, member in body.items():
        match name.lower():
            case "_debug_render_only" if member is True:
                return True
            case lower if lower == needed and member is not None:
                value = member
    return value in (None, "", [])


def _merge(pieces: list[Document], joined: frozenset[str], grown: frozenset[str], ambiguities: list[str]) -> Document:
    """The plain answer as Ollama makes it: the last piece, with the texts and the lists of all pieces.

    Raises ``Malformed`` without any piece.
    """
    if not pieces:
        raise Malformed("the stream holds no line")
    gathered = Deltas(ambiguities, joined=joined, grown=grown)
    for piece in pieces:
        gathered.add({name: value for name, value in piece.items() if name in joined or name in grown})
    last = {name: value for name, value in pieces[-1].items() if name not in joined and name not in grown}
    lost = {name for piece in pieces for name, value in piece.items() if value} - last.keys() - joined - grown
    if unknown := lost - _PROGRESS:
        ambiguities.append(f"{min(unknown)} is not in the last line")
    return last | gathered.result()


def _unambiguous(document: Document, ambiguities: list[str]) -> Document:
    if ambiguities:
        raise Lossy(ambiguities[0], document)
    return document


def _text(holder: Document, name: str) -> Iterator[str]:
    """The text under ``name``, if there is one."""
    if isinstance(text := holder.get(name), str) and text:
        yield text


def _lines(document: Document, pieces: list[Document], closing: Document) -> list[bytes]:
    """A line for each piece, and a last one with everything else. Log probabilities go with the first."""
    header = {name: document[name] for name in ("model", "created_at") if name in document}
    lines = [header | piece | {"done": False} for piece in pieces] + [{**document, **closing}]
    if lines[0] is not lines[-1] and "logprobs" in lines[-1]:
        lines[0]["logprobs"] = lines[-1].pop("logprobs")
    return [dump(line) + b"\n" for line in lines]


OLLAMA_CHAT = _OllamaChat()
OLLAMA_GENERATE = _OllamaGenerate()
OLLAMA_EMBED = _OllamaEmbed()
OLLAMA_EMBEDDINGS = _OllamaEmbeddings()
