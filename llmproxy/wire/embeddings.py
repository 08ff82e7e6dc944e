"""The answers of ``/v1/embeddings``."""

from llmproxy.wire.plain import PlainDialect


class _Embeddings(PlainDialect):
    __slots__ = ()

    name: str = "embeddings"
    answers: str = "data"


EMBEDDINGS = _Embeddings()
