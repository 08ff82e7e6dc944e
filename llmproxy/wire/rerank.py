"""The answers of ``/v1/rerank``, in the shape of Jina and Cohere. TEI answers with the list alone."""

from llmproxy.wire.dialect import Document
from llmproxy.wire.plain import PlainDialect
from llmproxy.wire.vocabulary import Reason


class _Rerank(PlainDialect):
    __slots__ = ()

    name: str = "rerank"
    answers: str = "results"

    def flaw(self, document: Document) -> Reason | None:
        reason = super().flaw(document)
        if reason is None and not all(isinstance(item, dict) for item in document[self.answers]):
            return Reason.MALFORMED
        if reason is None and any(item.get("error") is not None for item in document[self.answers]):
            return Reason.ERROR
        return reason


RERANK = _Rerank()
