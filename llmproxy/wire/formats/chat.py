"""The answers of chat and legacy completions: put together from the chunks of a stream, and taken apart into them."""

from collections.abc import Iterator, KeysView, Mapping, Sequence
from typing import Any, Protocol, TypeVar

from llmproxy.wire.documents import Document, Malformed
from llmproxy.wire.formats import chunks
from llmproxy.wire.formats.deltas import LONG, Deltas, ToolCalls
from llmproxy.wire.formats.repeated_chunk import RepeatedChunk

#: of a choice in a chunk
_USUAL = frozenset({"index", "delta", "finish_reason"})

#: texts of a message; the reasoning keeps the name it came under (llama.cpp's, Ollama's)
_TEXTS = ("reasoning_content", "reasoning", "content", "refusal")

#: a message that has one of these has no text of its own: its content stays null
_INSTEAD_OF_CONTENT = ("tool_calls", "function_call", "refusal", "audio")


class _ChatChoice:
    """One unfinished choice. ``ambiguities`` collects what another server may put together in another way."""

    __slots__ = (
        "_ambiguities",
        "_index",
        "_logprobs",
        "_members",
        "_message",
        "_parts",
        "_tool_calls",
        "_usual",
        "finish_reason",
        "pieces",
    )

    def __init__(self, index: int, ambiguities: list[str]):
        #: deltas with some text
        self.pieces = 0
        #: the names in a chunk that may hold no more than a piece of text, once they have been seen
        self._usual: KeysView[str] | None = None
        self.finish_reason: object = None
        self._index = index
        self._ambiguities = ambiguities
        self._members = Deltas(ambiguities, grown=chunks.GROWN)
        self._logprobs = chunks.Logprobs(ambiguities)
        self._message = Deltas(
            ambiguities,
            joined=frozenset(_TEXTS),
            grown=frozenset({"annotations"}),
            settled=frozenset({"role"}),
            pieces=True,
        )
        self._parts = {
            "function_call": Deltas(
                ambiguities, joined=frozenset({"arguments"}), settled=frozenset({"name"}), pieces=True
            ),
            "audio": Deltas(
                ambiguities, joined=frozenset({"data", "transcript"}), settled=frozenset({"id"}), pieces=True
            ),
        }
        self._tool_calls = ToolCalls(ambiguities)

    def add(self, choice: Mapping[str, Any]) -> None:
        """Takes the choice's part of one chunk. Raises ``Malformed``."""
        if text := self.text_alone(choice):
            self.add_text(text)
            return
        members = {name: value for name, value in choice.items() if name not in ("index", "delta")}
        self._usual = choice.keys() if _USUAL <= choice.keys() <= _USUAL | {"logprobs"} else None
        if isinstance(members.get("logprobs"), dict):
            self._logprobs.add(members.pop("logprobs"))
        if members.get("message") is not None:
            self._ambiguities.append("a message came beside the deltas")
        self.finish_reason = choice.get("finish_reason") or self.finish_reason
        self._members.add(chunks.finished(members))
        delta = choice.get("delta") or {}
        if not isinstance(delta, dict):
            raise Malformed("a delta is not an object")
        self._add_delta(delta)

    def text_alone(self, choice: Mapping[str, Any]) -> str:
        """The text, if there is nothing else to the choice's part of a chunk: so most are; else ""."""
        if choice.keys() != self._usual or choice["finish_reason"] is not None or choice.get("logprobs") is not None:
            return ""
        delta = choice["delta"]
        text = delta.get("content") if isinstance(delta, dict) and len(delta) == 1 else None
        return text if isinstance(text, str) else ""

    def add_text(self, text: str) -> None:
        """``add`` for such a part."""
        self.pieces += 1
        self._message.add_text("content", text)

    def _add_delta(self, delta: dict[str, Any]) -> None:
        self.pieces += any(delta.get(name) for name in (*_TEXTS, "tool_calls"))
        plain = delta
        for name in ("tool_calls", "function_call", "audio"):
            value = delta.get(name)
            if name == "tool_calls" and isinstance(value, list):
                self._tool_calls.add(value)
                # the name alone, so that an empty list stays one
                plain = plain | {name: []}
            elif name == "tool_calls" and value is not None:
                self._ambiguities.append("tool calls are no list")
            elif name in self._parts and isinstance(value, dict):
                self._parts[name].add(value)
                plain = {key: value for key, value in plain.items() if key != name}
        self._message.add(plain)

    def result(self, *, numbered: bool = False) -> dict[str, Any]:
        """The choice in the form of a plain answer; ``finish_reason`` is null until it is known.

        ``numbered`` keeps the indexes of its tool calls.
        """
        choice: dict[str, Any] = {"index": self._index, "finish_reason": None, **self._members.result()}
        if self._logprobs:
            choice["logprobs"] = self._logprobs.result()
        return choice | {"message": self._result_message(numbered)}

    def _result_message(self, numbered: bool) -> dict[str, Any]:
        message = self._message.result()
        message |= {name: part.result() for name, part in self._parts.items() if part}
        if self._tool_calls:
            message["tool_calls"] = self._tool_calls.result(numbered=numbered)
        content = message.get("content")
        if content is None and not any(message.get(name) for name in _INSTEAD_OF_CONTENT):
            content = ""
        return message | {"role": message.get("role") or "assistant", "content": content}


def _chat_deltas(index: int, choice: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """The choice's part of each chunk: role, texts (reasoning first), tool calls, the rest, finish.

    Raises ``Malformed`` when the choice has no message.
    """
    message = choice.get("message")
    if not isinstance(message, dict):
        raise Malformed("a choice has no message")
    rest = {name: value for name, value in choice.items() if name not in ("index", "message", "finish_reason")}
    for delta in _message_deltas(message):
        part: dict[str, Any] = {"index": index, "delta": delta, "finish_reason": None}
        if "logprobs" in rest and ("role" not in delta) and (delta.keys() & {"content", "refusal"}):
            part["logprobs"] = rest.pop("logprobs")
        yield part
    yield {"index": index, "delta": {}, **rest, "finish_reason": choice.get("finish_reason")}


def _message_deltas(message: dict[str, Any]) -> Iterator[dict[str, Any]]:
    # a text's name goes with the role when it is null or empty: null and "" are told apart by SDKs, absent too
    opening = {name: message[name] for name in _TEXTS if name in message and not message[name]}
    yield {"role": message.get("role", "assistant"), "content": None, **opening}
    texts = [name for name in _TEXTS if isinstance(message.get(name), str) and message[name]]
    for name in texts:
        yield {name: message[name]}
    sent = {"role", *opening, *texts}
    calls = message.get("tool_calls")
    if isinstance(calls, list) and calls:
        sent.add("tool_calls")
        for place, call in enumerate(calls):
            yield from _tool_call_deltas(place, call)
    rest = {name: value for name, value in message.items() if name not in sent}
    if rest:
        yield rest


def _tool_call_deltas(place: int, call: Any) -> Iterator[dict[str, Any]]:
    if not isinstance(call, dict):
        raise Malformed("a tool call is not an object")
    header = {"index": place, **call}
    if header["index"] != place:
        raise Malformed("the indexes of tool calls are not in order")
    long: dict[str, Any] = {}
    for kind, name in LONG.items():
        body = call.get(kind)
        if isinstance(body, dict) and isinstance(body.get(name), str):
            header[kind] = body | {name: ""}
            long[kind] = {name: body[name]}
    yield {"tool_calls": [header]}
    if long:
        yield {"tool_calls": [{"index": place, **long}]}


class _ChoiceBuilder(Protocol):
    """An unfinished choice of either kind."""

    finish_reason: object
    pieces: int

    def __init__(self, index: int, ambiguities: list[str]) -> None: ...

    def add(self, choice: dict[str, Any]) -> None: ...

    def text_alone(self, choice: Mapping[str, Any]) -> str: ...

    def add_text(self, text: str) -> None: ...


_C = TypeVar("_C", bound=_ChoiceBuilder)


def _collect(frames: Sequence[bytes], kind: type[_C]) -> tuple[chunks.Shell, list[_C]]:
    """What the chunks have in common, and their choices in order. Raises ``Malformed``."""
    ambiguities: list[str] = []
    shell = chunks.Shell(ambiguities)
    choices: dict[int, _C] = {}
    repeated, repeating = None, None
    for frame in chunks.until_done(frames):
        if repeated is not None and repeating is not None and (text := repeated.text_of(frame)):
            repeating.add_text(text)
            continue
        if (chunk := chunks.read(frame)) is None:
            continue
        shell.add(chunk)
        builder = None
        for index, choice in chunks.entries(chunk):
            builder = choices.get(index)
            if builder is None:
                builder = choices[index] = kind(index, ambiguities)
            builder.add(choice)
        repeated, repeating = _repeated(frame, chunk, builder), builder
    for unfinished in choices.values():
        shell.ended(unfinished.finish_reason, unfinished.pieces)
    return shell, [choices[index] for index in sorted(choices)]


def _repeated(frame: bytes, chunk: Document, builder: _ChoiceBuilder | None) -> RepeatedChunk | None:
    """The pattern of the chunks that add no more than a text after this one, None if there is more to it."""
    if builder is None or len(chunk["choices"]) != 1 or chunk.get("usage") is not None:
        return None
    choice = chunk["choices"][0]
    text = builder.text_alone(choice)
    if not text:
        return None
    return RepeatedChunk.of(frame, text, lambda other: {**chunk, "choices": [{**choice, "delta": {"content": other}}]})


#: the fingerprint of Ollama, whose plain answers have the indexes of tool calls too
_OLLAMA = "fp_ollama"


class _Chat(chunks.ChunkDialect):
    __slots__ = ()

    name: str = "chat"
    answer_member: str = "message"
    answer_type: type = dict

    def assemble(self, frames: Sequence[bytes]) -> Document:
        shell, choices = _collect(frames, _ChatChoice)
        numbered = shell.fingerprint == _OLLAMA
        results = [choice.result(numbered=numbered) for choice in choices]
        return shell.document("chat.completion", results)

    def render(self, document: Document) -> list[bytes]:
        choices = [delta for index, choice in chunks.in_order(document) for delta in _chat_deltas(index, choice)]
        return chunks.write(document, "chat.completion.chunk", choices)


CHAT = _Chat()


class _Completions(chunks.ChunkDialect):
    __slots__ = ()

    name: str = "completions"
    answer_member: str = "text"
    answer_type: type = str

    def assemble(self, frames: Sequence[bytes]) -> Document:
        shell, choices = _collect(frames, _TextChoice)
        return shell.document("text_completion", [choice.result() for choice in choices])

    def render(self, document: Document) -> list[bytes]:
        parts = [part for index, choice in chunks.in_order(document) for part in _text_parts(index, choice)]
        return chunks.write(document, "text_completion", parts)


class _TextChoice:
    """One unfinished choice."""

    __slots__ = ("_index", "_logprobs", "_members", "finish_reason", "pieces")

    def __init__(self, index: int, ambiguities: list[str]):
        #: chunks with some text
        self.pieces = 0
        self.finish_reason: object = None
        self._index = index
        self._members = Deltas(ambiguities, joined=frozenset({"text"}), grown=chunks.GROWN)
        self._logprobs = chunks.Logprobs(ambiguities)

    def add(self, choice: dict[str, Any]) -> None:
        logprobs = choice.get("logprobs")
        if isinstance(logprobs, dict):
            self._logprobs.add(logprobs)
            choice = {name: value for name, value in choice.items() if name != "logprobs"}
        self.pieces += bool(choice.get("text"))
        self.finish_reason = choice.get("finish_reason") or self.finish_reason
        self._members.add(chunks.finished(choice))

    def text_alone(self, choice: Mapping[str, Any]) -> str:
        return ""

    def add_text(self, text: str) -> None:
        self.add({"text": text})

    def result(self) -> dict[str, Any]:
        choice = {"finish_reason": None, **self._members.result(), "index": self._index}
        if self._logprobs:
            choice["logprobs"] = self._logprobs.result()
        return choice


def _text_parts(index: int, choice: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """The text with its logprobs, then the finish reason with whatever else the choice has."""
    opening = {name: choice[name] for name in ("text", "logprobs") if name in choice}
    yield opening | {"index": index, "finish_reason": None}
    closing = choice | {"index": index, "text": ""}
    if "logprobs" in closing:
        closing["logprobs"] = None
    yield closing


COMPLETIONS = _Completions()
