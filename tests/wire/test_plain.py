"""Answers that never stream."""

import pytest

from llmproxy.wire.dialect import Dialect
from llmproxy.wire.documents import Document, Malformed
from llmproxy.wire.exchange import Usage
from llmproxy.wire.formats.embeddings import EMBEDDINGS
from llmproxy.wire.formats.plain import RERANK
from llmproxy.wire.vocabulary import Reason


@pytest.mark.parametrize("dialect", [EMBEDDINGS, RERANK])
def test_they_do_not_stream(dialect: Dialect) -> None:
    assert not dialect.both
    assert not dialect.terminal(b"data: [DONE]\n\n")
    with pytest.raises(Malformed):
        dialect.render({"data": [{}], "results": [{}]})
    with pytest.raises(Malformed):
        dialect.assemble([b"data: [DONE]\n\n"])


@pytest.mark.parametrize(
    ("dialect", "document", "reason"),
    [
        (EMBEDDINGS, {"data": [{"embedding": [0.5]}]}, None),
        (EMBEDDINGS, {"data": []}, Reason.MALFORMED),
        (EMBEDDINGS, {"data": [{}], "error": {"message": "no"}}, Reason.ERROR),
        (RERANK, {"results": [{"index": 0, "relevance_score": 0.5}]}, None),
        (RERANK, {"data": []}, Reason.MALFORMED),
    ],
)
def test_flaws(dialect: Dialect, document: Document, reason: Reason | None) -> None:
    assert dialect.flaw(document) is reason


def test_usage() -> None:
    assert EMBEDDINGS.usage({"usage": {"prompt_tokens": 3, "total_tokens": 3}}) == Usage(3, None)
    assert EMBEDDINGS.usage({"usage": None}) == Usage()


@pytest.mark.parametrize(
    ("body", "document"),
    [
        (b'[{"index":0,"score":0.5}]', {"results": [{"index": 0, "score": 0.5}]}),
        (b" \n[]", {"results": []}),
        (b'{"results":[]}', {"results": []}),
        (b"[1", None),
        (b"7", None),
        (b"", None),
    ],
)
def test_a_bare_list_of_rankings_is_read_as_an_object(body: bytes, document: Document | None) -> None:
    assert RERANK.read_answer(body, b"application/json") == document


def test_only_rankings_may_be_a_bare_list() -> None:
    assert EMBEDDINGS.read_answer(b"[]", b"application/json") is None
    assert EMBEDDINGS.read_answer(b'{"data":[]}', b"") == {"data": []}


@pytest.mark.parametrize(
    ("results", "reason"),
    [
        ([{"index": 0}, {"index": 1}], None),
        ([{"index": 0}, 0.5], Reason.MALFORMED),
        ([{"index": 0}, {"index": 1, "error": "no"}], Reason.ERROR),
        ([], Reason.MALFORMED),
        ({}, Reason.MALFORMED),
    ],
)
def test_every_ranking_must_be_one(results: object, reason: Reason | None) -> None:
    assert RERANK.flaw({"results": results}) is reason
