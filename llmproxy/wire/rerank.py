"""The answers of ``/v1/rerank``, in the shape of Jina and Cohere."""

from llmproxy.wire.plain import PlainDialect


class _Rerank(PlainDialect):
    __slots__ = ()

    name: str = "rerank"
    answers: str = "results"


RERANK = _Rerank()
