"""``/v1/audio/transcriptions``: a form with a recording in, a transcript in one of several formats out.

JSON formats are objects with a member ``text``; ``text``, ``srt`` and ``vtt`` are plain text. Neither the plain answer
nor the stream is made from the other.
"""

import math
from collections import defaultdict
from collections.abc import Sequence
from hashlib import sha256
from typing import Any

from llmproxy.wire.dialect import JsonDialect, StreamError, fault_of
from llmproxy.wire.documents import Document, Malformed, dump, parse, peek, read_leniently, tokens
from llmproxy.wire.errors import OPENAI_ERRORS, BadRequest, ProxyError, UnreadableBody, error_document
from llmproxy.wire.exchange import Usage
from llmproxy.wire.framing import sse_data, sse_frame
from llmproxy.wire.headers import media_type
from llmproxy.wire.multipart import MultipartForm
from llmproxy.wire.vocabulary import Reason

#: members that describe the recording beside its digest
FILE_NAME, FILE_TYPE = "file.name", "file.type"

#: fields that a request has once, because the proxy reads them
_ONCE = ("model", "stream", "temperature")
_FLAGS = {"true": True, "false": False}
#: bytes of a form that are read at a time
_PIECE = 1024 * 1024
#: how a page begins that a server sends in the place of a transcript
_MARKUP = ("<!doctype", "<html")


class _Transcriptions(JsonDialect):
    __slots__ = ()

    name: str = "transcriptions"
    both: bool = False
    json_requests: bool = False
    document_type: bytes = b""

    def read_request(self, body: bytes, content_type: bytes) -> Document:
        """The fields of the form, and the recording as its digest, its length, its name and its type."""
        if media_type(content_type) != b"multipart/form-data":
            raise UnreadableBody("The request body must be multipart/form-data.")
        form = MultipartForm(content_type.decode("latin-1"))
        digest, size = sha256(), 0
        for at in range(0, len(body), _PIECE):
            for piece in form.feed(body[at : at + _PIECE]):
                digest.update(piece)
                size += len(piece)
        form.end()
        members = _fields(form.values)
        if form.filename is not None:
            members["file"] = {"sha256": digest.hexdigest(), "bytes": size}
            members |= {FILE_NAME: form.filename, FILE_TYPE: form.file_type}
        return members

    def read_answer(self, body: bytes, content_type: bytes) -> Document | None:
        document = peek(body)
        if document is not None or media_type(content_type).endswith(b"json"):
            return document
        text = body.decode("utf-8", "replace")
        is_transcript = bool(text.strip()) and not text.lstrip().lower().startswith(_MARKUP)
        return {"text": text} if is_transcript else None

    def terminal(self, frame: bytes) -> bool:
        if b"[DONE]" in frame:
            return sse_data(frame).strip() == b"[DONE]"
        if b'"transcript.text.done"' not in frame:
            return False
        event = read_leniently(sse_data(frame))
        return event is not None and event.get("type") == "transcript.text.done"

    def fault(self, frame: bytes) -> StreamError | None:
        return fault_of(frame)

    def assemble(self, frames: Sequence[bytes]) -> Document:
        """The last event of the stream, which has the whole text; vLLM's streams have it in pieces only."""
        text, usage = "", None
        for frame in frames:
            data = sse_data(frame)
            if data.strip() == b"[DONE]":
                break
            event = parse(data)
            if event.get("type") == "transcript.text.done":
                return {name: value for name, value in event.items() if name != "type"}
            text += _delta(event)
            usage = event.get("usage") or usage
        return {"text": text, "usage": usage}

    def render(self, document: Document) -> list[bytes]:
        raise Malformed("the stream is not made from the plain answer")

    def flaw(self, document: Document) -> Reason | None:
        if document.get("error") is not None or "error" in (document.get("type"), document.get("object")):
            return Reason.ERROR
        return None if isinstance(document.get("text"), str) else Reason.MALFORMED

    def usage(self, document: Document) -> Usage:
        return tokens(document.get("usage"), "input_tokens", "output_tokens")

    def failure(self, error: ProxyError, request_id: str = "") -> bytes:
        return sse_frame(dump(error_document(OPENAI_ERRORS, error, request_id)))


def _fields(values: list[tuple[str, str]]) -> Document:
    """The text fields of a form: a list for a repeated name, numbers and flags as such."""
    found: defaultdict[str, list[str]] = defaultdict(list)
    for name, value in values:
        found[name].append(value)
    for name in found.keys() & {FILE_NAME, FILE_TYPE}:
        raise BadRequest(f"The form has a field '{name}', which stands for something else here.", param=name)
    for name in _ONCE:
        if len(found.get(name, ())) > 1:
            raise BadRequest(f"The form has more than one '{name}'.", param=name)
    members: Document = {name: value[0] if len(value) == 1 else value for name, value in found.items()}
    if "stream" in members:
        members["stream"] = _flag(members["stream"])
    if "temperature" in members:
        members["temperature"] = _number(members["temperature"])
    return members


def _flag(text: str) -> bool:
    if (flag := _FLAGS.get(text.lower())) is None:
        raise BadRequest("'stream' must be true or false.", param="stream")
    return flag


def _number(text: str) -> float | str:
    """Temperatures are compared by value: ``0`` and ``0.0`` are one."""
    try:
        number = float(text)
    except ValueError:
        return text
    return number if math.isfinite(number) else text


def _delta(event: Document) -> str:
    """The text in a chunk of vLLM's, which has the form of a chat's."""
    choices = event.get("choices")
    delta: Any = choices[0].get("delta") if isinstance(choices, list) and choices else None
    text = delta.get("content") if isinstance(delta, dict) else None
    return text if isinstance(text, str) else ""


TRANSCRIPTIONS = _Transcriptions()
