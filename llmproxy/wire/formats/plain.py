"""The dialect of endpoints that never stream, and rerank's: each answer is one JSON document."""

from collections.abc import Sequence

import orjson

from llmproxy.wire.dialect import JsonDialect, StreamError
from llmproxy.wire.documents import Document, Malformed, dump, tokens
from llmproxy.wire.errors import OPENAI_ERRORS, ProxyError, error_document
from llmproxy.wire.exchange import Usage
from llmproxy.wire.framing import sse_frame
from llmproxy.wire.vocabulary import Reason


class PlainDialect(JsonDialect):
    """A dialect without streams. ``answers`` is the member with the list of results."""

    __slots__ = ()

    both: bool = False
    answers: str

    def terminal(self, frame: bytes) -> bool:
        return False

    def fault(self, frame: bytes) -> StreamError | None:
        return None

    def assemble(self, frames: Sequence[bytes]) -> Document:
        raise Malformed("this endpoint does not stream")

    def render(self, document: Document) -> list[bytes]:
        raise Malformed("this endpoint does not stream")

    def flaw(self, document: Document) -> Reason | None:
        if document.get("error") is not None:
            return Reason.ERROR
        answers = document.get(self.answers)
        return None if isinstance(answers, list) and answers else Reason.MALFORMED

    def usage(self, document: Document) -> Usage:
        return tokens(document.get("usage"), "prompt_tokens", "completion_tokens")

    def failure(self, error: ProxyError, request_id: str = "") -> bytes:
        return sse_frame(dump(error_document(OPENAI_ERRORS, error, request_id)))


class _Rerank(PlainDialect):
    __slots__ = ()

    name: str = "rerank"
    answers: str = "results"

    def read_answer(self, body: bytes, content_type: bytes) -> Document | None:
        """TEI's list is read as the object that others send."""
        if not body.lstrip().startswith(b"["):
            return super().read_answer(body, content_type)
        try:
            return {self.answers: orjson.loads(body)}
        except orjson.JSONDecodeError:
            return None

    def flaw(self, document: Document) -> Reason | None:
        reason = super().flaw(document)
        if reason is None and not all(isinstance(item, dict) for item in document[self.answers]):
            return Reason.MALFORMED
        if reason is None and any(item.get("error") is not None for item in document[self.answers]):
            return Reason.ERROR
        return reason


RERANK = _Rerank()
