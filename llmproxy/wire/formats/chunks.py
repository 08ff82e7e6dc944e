"""What the streams of chat and of legacy completions have in common: chunks with choices, usage, ``[DONE]``."""

import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from llmproxy.wire.dialect import JsonDialect, Lossy, StreamError, fault_of, is_final_reason
from llmproxy.wire.documents import Document, Malformed, dump, parse, peek, read_leniently, tokens
from llmproxy.wire.errors import OPENAI_ERRORS, ProxyError, error_document
from llmproxy.wire.exchange import Usage
from llmproxy.wire.formats.deltas import Deltas
from llmproxy.wire.framing import sse_data, sse_event, sse_frame
from llmproxy.wire.vocabulary import Reason

#: a member, not a word in a text: there its quotes would be escaped
_FINISH = re.compile(rb'"finish_reason"\s*:\s*"[^"]')
#: in most chunks the second is wherever the first is, and the pattern need not be asked
_FINISH_NAME, _UNFINISHED = b'"finish_reason"', b'"finish_reason":null'
#: the usual end of a chunk of OpenAI's
_NULL_AT_THE_END = b',"usage":null}\n\n'

#: members that every chunk repeats
_EVERY_CHUNK = frozenset({"id", "object", "created", "model", "system_fingerprint", "service_tier", "choices", "usage"})


class UsageFilter:
    """Turns a stream that was requested with usage into the one that a caller without usage would have got.

    The proxy always asks for usage, to know what an answer cost. That leaves traces: OpenAI puts a null usage on every
    chunk, Ollama one of zeros, all send a chunk of its own at the end, and llama.cpp puts its timings on that chunk
    instead of the one before it. A chunk that finishes a choice is held back until the next one has come.
    """

    __slots__ = ("_pending",)

    def __init__(self) -> None:
        self._pending: bytes | None = None

    def feed(self, frames: Iterable[bytes]) -> list[bytes]:
        output: list[bytes] = []
        for frame in frames:
            if b'"usage"' not in frame:
                self._emit(frame, output)
            elif frame.endswith(_NULL_AT_THE_END) and frame.count(b"\n") == 2:
                self._emit(frame[: -len(_NULL_AT_THE_END)] + b"}\n\n", output)
            elif (chunk := peek(sse_data(frame))) is None:
                self._emit(frame, output)
            elif is_usage_only(chunk):
                self._attach(chunk)
            elif _is_trace(chunk):
                remaining = {name: value for name, value in chunk.items() if name != "usage"}
                self._emit(sse_frame(dump(remaining), sse_event(frame)), output)
            else:
                self._emit(frame, output)
        return output

    def close(self) -> list[bytes]:
        """Ends the stream: returns the chunk that was held back."""
        pending, self._pending = self._pending, None
        return [] if pending is None else [pending]

    def _emit(self, frame: bytes, output: list[bytes]) -> None:
        if self._pending is not None:
            output += self.close()
        if frame.count(_FINISH_NAME) != frame.count(_UNFINISHED) and _FINISH.search(frame):
            self._pending = frame
        else:
            output.append(frame)

    def _attach(self, chunk: Document) -> None:
        """Moves the other members of a usage chunk to the chunk before it."""
        extra = {name: value for name, value in chunk.items() if name not in _EVERY_CHUNK}
        pending = None if self._pending is None else peek(sse_data(self._pending))
        if extra and pending is not None and self._pending is not None:
            self._pending = sse_frame(dump(extra | pending), sse_event(self._pending))


def is_usage_only(chunk: Document) -> bool:
    """Whether only callers who asked for usage get this chunk."""
    return chunk.get("choices") == [] and chunk.get("usage") is not None


def _is_trace(chunk: Document) -> bool:
    """Whether the chunk has a usage only because the proxy asked for it. Real counts at a choice's end come unasked."""
    if "usage" not in chunk:
        return False
    usage, choices = chunk["usage"], chunk.get("choices")
    if isinstance(usage, dict) and isinstance(choices, list) and any(map(_is_finishing, choices)):
        return not any(usage.values())
    return True


def _is_finishing(choice: Any) -> bool:
    return isinstance(choice, dict) and bool(choice.get("finish_reason"))


DONE = b"data: [DONE]\n\n"

#: ``finish_reason`` of chat and legacy completions
_FINISH_REASONS = frozenset(
    {
        "content_filter",
        "end_turn",
        "eos",
        "eos_token",
        "function_call",
        "length",
        "max_tokens",
        "model_length",
        "stop",
        "stop_sequence",
        "tool_calls",
        "tool_use",
    }
)
#: members every chunk repeats
_HEADER = ("id", "created", "model", "system_fingerprint", "service_tier")
#: members whose first value counts: they name the answer, and some servers name each chunk
_SETTLED = ("id", "created", "model")
#: members whose last value counts
_LAST = ("object", "service_tier", "system_fingerprint", "timings")
#: members of one chunk only: padding, progress of the prompt, and members that are put together separately
_TRANSIENT = ("obfuscation", "prompt_progress", "usage", "choices")
#: lists beside a choice's text that grow with it (vLLM)
GROWN = frozenset({"token_ids"})
#: lists of log probabilities, in the shape of chat and in the one of legacy completions
_LOGPROBS = frozenset({"content", "refusal", "tokens", "token_logprobs", "top_logprobs", "text_offset"})


class ChunkDialect(JsonDialect):
    """The half of a dialect that chat and legacy completions share. ``answer_member`` is where a choice has its
    answer."""

    __slots__ = ()

    both: bool = True
    answer_member: str
    answer_type: type

    def terminal(self, frame: bytes) -> bool:
        return frame == DONE or (b"[DONE]" in frame and sse_data(frame).strip() == b"[DONE]")

    def finished(self, frames: Sequence[bytes]) -> bool:
        """Servers without ``[DONE]`` (ik_llama.cpp, older TGI) mark the end by the finish reason of every choice."""
        reasons: dict[object, object] = {}
        for frame in frames:
            choices = (read_leniently(sse_data(frame)) or {}).get("choices")
            for place, choice in enumerate(choices if isinstance(choices, list) else []):
                if isinstance(choice, dict):
                    index = str(choice.get("index", place))
                    reasons[index] = choice.get("finish_reason") or reasons.get(index)
        return bool(reasons) and all(reasons.values())

    def fault(self, frame: bytes) -> StreamError | None:
        return fault_of(frame)

    def usage_only(self, frame: bytes) -> bool:
        if b'"usage"' not in frame or b'"usage":null' in frame:
            return False
        chunk = peek(sse_data(frame))
        return chunk is not None and is_usage_only(chunk)

    def usage_filter(self) -> UsageFilter:
        return UsageFilter()

    def flaw(self, document: Document) -> Reason | None:
        if document.get("error") is not None or "error" in (document.get("type"), document.get("object")):
            return Reason.ERROR
        choices = document.get("choices")
        if not isinstance(choices, list) or not choices:
            return Reason.MALFORMED
        for choice in choices:
            if not isinstance(choice, dict):
                return Reason.MALFORMED
            if choice.get("error") is not None:
                return Reason.ERROR
            answer = choice.get(self.answer_member)
            if not isinstance(answer, self.answer_type):
                return Reason.MALFORMED
            if isinstance(answer, dict) and answer.get("error") is not None:
                return Reason.ERROR
        if not all(is_final_reason(choice.get("finish_reason"), _FINISH_REASONS) for choice in choices):
            return Reason.INCOMPLETE
        return None

    def usage(self, document: Document) -> Usage:
        return tokens(document.get("usage"), "prompt_tokens", "completion_tokens")

    def failure(self, error: ProxyError, request_id: str = "") -> bytes:
        return sse_frame(dump(error_document(OPENAI_ERRORS, error, request_id)))


def until_done(frames: Sequence[bytes]) -> Iterator[bytes]:
    """The frames before ``[DONE]``."""
    for frame in frames:
        if b"[DONE]" in frame and sse_data(frame).strip() == b"[DONE]":
            return
        yield frame


def read(frame: bytes) -> Document | None:
    """The chunk in a frame; None for a null, which llama.cpp sends for each further prompt of a list.

    Raises ``Malformed``.
    """
    data = sse_data(frame).strip()
    return None if data == b"null" else parse(data)


def entries(chunk: Document) -> Iterator[tuple[int, dict[str, Any]]]:
    """The choices of a chunk with their indexes; a missing index is the place in the list. Raises ``Malformed``."""
    choices = chunk.get("choices")
    if choices is None:
        return
    if not isinstance(choices, list):
        raise Malformed("choices is not a list")
    for place, choice in enumerate(choices):
        if not isinstance(choice, dict):
            raise Malformed("a choice is not an object")
        index = choice.get("index", place)
        if not isinstance(index, int):
            raise Malformed("the index of a choice is not a number")
        yield index, choice


def finished(choice: dict[str, Any]) -> dict[str, Any]:
    """The choice's part of a chunk, with null for an empty finish reason, which some servers send before the end."""
    return choice | {"finish_reason": None} if choice.get("finish_reason") == "" else choice


class Logprobs(Deltas):
    """The log probabilities of one choice: lists to extend."""

    __slots__ = ()

    def __init__(self, ambiguities: list[str]) -> None:
        super().__init__(ambiguities, grown=_LOGPROBS, pieces=True)


class Shell:
    """The answer around its choices: the first id, model and creation time, further members of the chunks, the
    usage."""

    __slots__ = ("_ambiguities", "_last", "_members", "_rest", "_usage")

    def __init__(self, ambiguities: list[str]) -> None:
        self._ambiguities = ambiguities
        self._last: Document | None = None
        self._members: Document = {}
        self._rest = Deltas(ambiguities)
        self._usage = _UsageTally()

    def add(self, chunk: Document) -> None:
        around = {**chunk, "choices": None}
        if around == self._last:
            # most chunks differ from the one before in their choices alone
            return
        self._last = around if chunk.get("usage") is None else None
        self._usage.add(chunk)
        rest: Document = {}
        for name, value in chunk.items():
            if name in _LAST:
                if value is not None or name not in self._members:
                    self._members[name] = value
            elif name in _SETTLED:
                # Azure's first chunk has no id, no model and no time
                self._members[name] = self._members.get(name) or value
            elif name not in _TRANSIENT:
                rest[name] = value
        self._rest.add(rest)

    @property
    def fingerprint(self) -> object:
        """The server's name for itself."""
        return self._members.get("system_fingerprint")

    def ended(self, finish_reason: object, pieces: int) -> None:
        """Notes that a choice has ended after so many pieces of text.

        llama.cpp holds back the possible beginning of a stop word, and tokens that are not yet a whole character. If
        the answer is cut off there, only its plain form has the rest. The server sends each token in a piece of its own
        and reports how many there were.
        """
        timings = self._members.get("timings")
        tokens = timings.get("predicted_n") if isinstance(timings, dict) else None
        if finish_reason == "length" and isinstance(tokens, int) and pieces < tokens:
            self._ambiguities.append("the end of a text was held back")

    def document(self, object: str, choices: list[dict[str, Any]]) -> Document:
        """The whole answer. Raises ``Malformed`` without any chunk, ``Lossy`` if the sender's may be a different
        one."""
        if not self._rest:
            raise Malformed("the stream holds no chunk")
        usage, exact = self._usage.total()
        document = self._members | self._rest.result() | {"object": object, "choices": choices}
        if usage is not None:
            document["usage"] = usage
        if self._ambiguities or not exact:
            raise Lossy(self._ambiguities[0] if self._ambiguities else "there are several usages", document)
        return document


class _UsageTally:
    """Finds the usage of the whole answer among the usages of its chunks.

    A chunk without choices is the authority: servers that report a running count on other chunks (zeros from Ollama)
    send the sum there. llama.cpp sends one per choice, each with the whole prompt; its legacy completions have them on
    the chunks that finish a choice.
    """

    __slots__ = ("_alone", "_finishing", "_running")

    def __init__(self) -> None:
        self._alone: list[dict[str, Any]] = []
        self._finishing: list[dict[str, Any]] = []
        self._running: list[dict[str, Any]] = []

    def add(self, chunk: Document) -> None:
        usage = chunk.get("usage")
        if not isinstance(usage, dict):
            return
        if not chunk.get("choices"):
            self._alone.append(usage)
        elif any(choice.get("finish_reason") is not None for _, choice in entries(chunk)):
            self._finishing.append(usage)
        else:
            self._running = [usage]

    def total(self) -> tuple[dict[str, Any] | None, bool]:
        """The usage, and whether it is the sender's own: its sum of several usages is not known."""
        counted = self._alone or self._finishing or self._running
        if len(counted) < 2:
            return (counted[0] if counted else None), True
        total = dict(counted[0])
        total["completion_tokens"] = _sum(usage.get("completion_tokens") for usage in counted)
        total["total_tokens"] = _sum((total.get("prompt_tokens"), total["completion_tokens"]))
        details = [usage.get("completion_tokens_details") or {} for usage in counted]
        if any(details):
            total["completion_tokens_details"] = {
                name: _sum(detail.get(name) for detail in details) for name in set().union(*details)
            }
        return total, False


def _sum(counts: Iterable[object]) -> int:
    return sum(count for count in counts if isinstance(count, int))


def write(document: Document, object: str, choices: Sequence[dict[str, Any]]) -> list[bytes]:
    """The frames of a stream whose chunks carry ``choices``, one each: usage on a chunk of its own, then ``[DONE]``.

    Unknown members go on the last chunk before the usage; llama.cpp's timings on the very last.
    """
    header = {name: document[name] for name in _HEADER if name in document}
    header["object"] = object
    written = {*header, "choices", "usage", "timings"}
    rest = {name: value for name, value in document.items() if name not in written}
    chunks = [header | {"choices": [choice]} for choice in choices]
    if chunks:
        chunks[-1] |= rest
    if document.get("usage") is not None:
        chunks.append(header | {"choices": [], "usage": document["usage"]})
    if chunks and "timings" in document:
        chunks[-1]["timings"] = document["timings"]
    return [*(sse_frame(dump(chunk)) for chunk in chunks), DONE]


def in_order(document: Document) -> list[tuple[int, dict[str, Any]]]:
    """The choices of a plain answer by index: helpers of SDKs need index 0 first. Raises ``Malformed``."""
    ordered = sorted(entries(document), key=lambda entry: entry[0])
    if not ordered:
        raise Malformed("the answer has no choices")
    return ordered
