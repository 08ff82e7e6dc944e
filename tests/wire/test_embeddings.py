"""Embeddings answers, cut into one part for each input and put together of such parts."""

import base64
import json
import struct
from collections.abc import Sequence
from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmproxy.wire.documents import Malformed
from llmproxy.wire.formats.embeddings import (
    BASE64,
    EMBEDDINGS,
    FLOAT,
    OtherNumbers,
    Part,
    assembled,
    cut,
    inputs_of,
    is_per_input,
    other_numbers,
    rendered,
    shares,
)
from llmproxy.wire.vocabulary import Reason

Json = dict[str, Any]

float32s = st.floats(width=32, allow_nan=False, allow_infinity=False)
#: numbers as servers print them: float32s widened, doubles, exponents, whole numbers, trailing zeros
numbers = st.one_of(
    float32s.map(repr),
    st.floats(allow_nan=False, allow_infinity=False).map(repr),
    st.sampled_from(["0.10", "1e-7", "1E+3", "-0.0", "1.0", "12", "-128", "0.012345678901234567890", "3.4028234e38"]),
)


def packed(vector: Sequence[float]) -> str:
    return base64.b64encode(struct.pack(f"<{len(vector)}f", *vector)).decode()


def answer(*vectors: str, indexes: Sequence[Any] | None = None, usage: str = '{"prompt_tokens":7}') -> bytes:
    """An answer around the texts of vectors, with members of its own and blanks that a server may print."""
    places = range(len(vectors)) if indexes is None else indexes
    items = ", ".join(
        f'{{"object": "embedding", "embedding": {vector}, "index": {json.dumps(place)}, "of": "item {at}"}}'
        for at, (vector, place) in enumerate(zip(vectors, places, strict=True))
    )
    return f'{{"id":"e-1","object":"list","data":[{items}],"model":"m","usage":{usage}}}'.encode()


def texts(parts: Sequence[Part]) -> list[str]:
    return [part.vector.decode() for part in parts]


def put_together(parts: Sequence[Part], encoding: str = FLOAT) -> Json:
    document: Json = orjson.loads(assembled(parts, encoding)[0])
    return document


@settings(deadline=None)
@given(st.integers(1, 5).flatmap(lambda size: st.lists(st.lists(numbers, min_size=size, max_size=size), min_size=1)))
def test_the_text_of_every_number_stays(vectors: list[list[str]]) -> None:
    printed = ["[" + ",".join(vector) + "]" for vector in vectors]
    parts = cut(answer(*printed), [str(at) for at in range(len(printed))])
    assert texts(parts) == printed
    body, _ = assembled(parts, FLOAT)
    assert all(text.encode() in body for text in printed)


@given(st.permutations(range(6)))
def test_items_go_by_their_index(order: list[int]) -> None:
    parts = cut(answer(*(f"[{place}.5]" for place in order), indexes=order), list("abcdef"))
    assert texts(parts) == [f"[{place}.5]" for place in range(6)]
    document = put_together(parts[::-1])
    assert [item["index"] for item in document["data"]] == list(range(6))
    assert [item["embedding"] for item in document["data"]] == [[place + 0.5] for place in range(5, -1, -1)]


@pytest.mark.parametrize("index", [0, None])
def test_items_that_are_all_numbered_alike_go_by_their_order(index: int | None) -> None:
    parts = cut(answer("[0.5]", "[1.5]", indexes=[index, index]), ["a", "b"])
    assert texts(parts) == ["[0.5]", "[1.5]"]
    assert [item["index"] for item in put_together(parts)["data"]] == [0, 1]


@pytest.mark.parametrize("indexes", [[0, 0, 1], [1, 2, 3], [0, 1, "2"], [0, 1, True], [1, 1, 1], [0, None, 2]])
def test_items_that_are_numbered_in_another_way_are_not_cut(indexes: list[Any]) -> None:
    with pytest.raises(Malformed):
        cut(answer("[0.5]", "[1.5]", "[2.5]", indexes=indexes), list("abc"))


@given(st.lists(st.lists(float32s, min_size=3, max_size=3), min_size=1, max_size=4), st.booleans())
def test_floats_and_base64_are_made_of_each_other(vectors: list[list[float]], as_text: bool) -> None:
    printed = [f'"{packed(vector)}"' if as_text else json.dumps(vector) for vector in vectors]
    parts = cut(answer(*printed), list(range(len(vectors))))
    floats = [item["embedding"] for item in put_together(parts, FLOAT)["data"]]
    strings = [item["embedding"] for item in put_together(parts, BASE64)["data"]]
    assert floats == vectors
    assert strings == [packed(vector) for vector in vectors]


@given(float32s.map(lambda number: next(t for d in range(1, 10) if _packs_to(t := f"{number:.{d}g}", number))))
def test_the_shortest_form_of_a_float32_is_that_float32(text: str) -> None:
    """As Go and Rust print it."""
    text = text if "." in text or "e" in text else f"{text}.0"
    assert rendered(f"[{text}]".encode(), BASE64) == f'"{packed([float(text)])}"'.encode()


@given(st.lists(st.floats(width=32, min_value=-1, max_value=1, allow_subnormal=False), min_size=1))
def test_base64_is_given_as_the_shortest_numbers_to_those_whose_server_prints_so(vector: list[float]) -> None:
    text = rendered(f'"{packed(vector)}"'.encode(), FLOAT, shortest=True)
    assert packed(json.loads(text, parse_int=float)) == packed(vector)
    assert rendered(b'"zczMPQrXIzw="', FLOAT, shortest=True) == b"[0.1,0.01]"


def _packs_to(text: str, number: float) -> bool:
    try:
        return struct.pack("<f", float(text)) == struct.pack("<f", number)
    except OverflowError:
        return False


@pytest.mark.parametrize(
    "vector",
    ["[0.12345678901234567, 0.5]", "[1e300]", "[1e-60]", "[12, -128]", "[0.30000000000000004]"],
    ids=["double", "too large", "too small", "whole numbers", "rounded"],
)
def test_what_is_no_float32_has_one_encoding(vector: str) -> None:
    parts = cut(answer(vector), ["a"])
    assert texts(parts) == [vector]
    with pytest.raises(OtherNumbers):
        assembled(parts, BASE64)


@pytest.mark.parametrize(
    "vector",
    [
        "[[0.5,0.25]]",
        "null",
        "[]",
        "[0.5,null]",
        '["0.5"]',
        "[true]",
        '{"indices":[1],"values":[0.5]}',
        '{"float":[0.5]}',
        '""',
        '"abc"',
        '"AAA="',
        '"not base64!"',
        '"AADAfw=="',
        "0.5",
    ],
)
def test_what_is_no_vector_of_float32s_is_not_cut(vector: str) -> None:
    body = answer(vector)
    with pytest.raises(OtherNumbers):
        cut(body, ["a"])
    assert EMBEDDINGS.flaw(orjson.loads(body)) is Reason.NOT_FLOAT32


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"<html>",
        b"[]",
        b'[{"index":0,"embedding":[[0.5]]}]',
        b'{"embedding":[0.5]}',
        b'{"data":[]}',
        b'{"data":null}',
        b'{"data":[0]}',
        b'{"data":[{"embedding":[NaN]}]}',
        b'{"data":[{"embedding":[01]}]}',
        b'{"data":[{"embedding":[1,]}]}',
        b'{"data":[{"embedding":[0.5]}],"error":"no"}',
        answer("[0.5]"),
        answer("[0.5]", "[0.5,1.5]"),
        answer("[0.5]", '"AAAAPw=="'),
        b'{"data":[{"embedding":[0.5],"embedding":[1.5]},{"embedding":[0.5]}]}',
        b'{"data":[{"meta":{"embedding":[0.5]},"embedding":[1.5]},{"embedding":[0.5]}]}',
    ],
)
def test_answers_of_another_form_are_not_cut(body: bytes) -> None:
    with pytest.raises(Malformed):
        cut(body, ["a", "b"])


def test_further_members_stay() -> None:
    parts = cut(answer("[0.5]", "[1.5]", usage='{"prompt_tokens":9,"total_tokens":9,"cost":null}'), ["a", "b"])
    document = put_together(parts)
    assert (document["id"], document["object"], document["model"]) == ("e-1", "list", "m")
    assert [item["of"] for item in document["data"]] == ["item 0", "item 1"]
    assert list(document["data"][0]) == ["object", "embedding", "index", "of"]
    assert document["usage"] == {"prompt_tokens": 9, "total_tokens": 9, "cost": None}


@pytest.mark.parametrize("separators", [(", ", ": "), (",", ":")], ids=["with blanks", "without"])
@given(st.lists(st.lists(float32s, min_size=2, max_size=2), min_size=1, max_size=3), st.text(max_size=9))
def test_put_together_again_it_is_the_same_bytes(
    separators: tuple[str, str], vectors: list[list[float]], text: str
) -> None:
    data = [{"object": "embedding", "embedding": vector, "index": at, "of": 1} for at, vector in enumerate(vectors)]
    document = {"id": text, "object": "list", "data": data, "usage": {"prompt_tokens": 5, "total_tokens": 5}}
    body = json.dumps(document, separators=separators, ensure_ascii=separators[0] == ", ").encode()
    assert assembled(cut(body, list("abc")[: len(vectors)]), FLOAT)[0] == body


def test_the_name_of_an_encoding_goes_with_it() -> None:
    """llama.cpp has it beside base64 only."""
    body = b'{"data":[{"embedding":"AAAAPw==","index":0,"encoding_format":"base64"}]}'
    (part,) = cut(body, ["a"])
    assert put_together([part], BASE64)["data"][0] == {
        "embedding": "AAAAPw==",
        "index": 0,
        "encoding_format": "base64",
    }
    assert put_together([part], FLOAT)["data"][0] == {"embedding": [0.5], "index": 0}


def test_no_usage_is_made_up() -> None:
    silent = cut(b'{"data":[{"embedding":[0.5]}]}', ["a"])
    assert put_together(silent) == {"data": [{"embedding": [0.5]}]}
    assert silent[0].prompt_tokens is None
    told = cut(answer("[1.5]"), ["b"])
    assert "usage" not in put_together([*told, *silent])


@given(st.integers(0, 10**6), st.lists(st.one_of(st.text(), st.lists(st.integers())), min_size=1))
def test_the_sum_of_the_usage_stays(total: int, inputs: list[Any]) -> None:
    given_out = shares(total, inputs)
    assert sum(given_out) == total
    assert all(share >= 0 for share in given_out)
    usage = json.dumps({"prompt_tokens": total, "total_tokens": total})
    parts = cut(answer(*["[0.5]"] * len(inputs), usage=usage), inputs)
    assert put_together(parts)["usage"] == {"prompt_tokens": total, "total_tokens": total}


@pytest.mark.parametrize(
    ("value", "inputs"),
    [
        (None, []),
        ("a", ["a"]),
        ([], []),
        (["a", "b"], ["a", "b"]),
        ([1, 2], [[1, 2]]),
        ([[1], [2, 3]], [[1], [2, 3]]),
        ([1, "a"], [[1, "a"]]),
        (["a", 1], [["a", 1]]),
        (["a", [1]], ["a", [1]]),
        ([{"image": "x"}], [{"image": "x"}]),
        (5, [5]),
    ],
)
def test_inputs(value: Any, inputs: list[Any]) -> None:
    assert inputs_of({"input": value}) == inputs


@pytest.mark.parametrize(
    ("more", "others"),
    [
        ({}, False),
        ({"encoding_format": None}, False),
        ({"encoding_format": "base64"}, False),
        ({"encoding_format": "base64_float16"}, True),
        ({"encoding_format": 5}, True),
        ({"encoding_format": ["float"]}, True),
        ({"embed_dtype": "float16"}, True),
        ({"embed_dtype": "float32"}, False),
        ({"output_dtype": "ubinary"}, True),
        ({"embedding_types": ["float", "int8"]}, True),
        ({"endianness": "big"}, True),
    ],
)
def test_which_numbers_a_request_asks_for(more: Json, others: bool) -> None:
    assert other_numbers({"model": "m", "input": "a", **more}) is others


def test_a_field_that_is_not_known_may_tie_the_inputs_together() -> None:
    assert is_per_input({"model": "m", "input": ["a"], "dimensions": 2, "user": "u", "encoding_format": "float"})
    assert not is_per_input({"model": "m", "input": ["a"], "late_chunking": True})
    assert not is_per_input({"model": "m", "messages": []})


@pytest.mark.parametrize(
    ("vector", "encodings"),
    [
        ("[0.5,0.25]", {FLOAT, BASE64, ""}),
        ('"AAAAPwAAgD4="', {FLOAT, BASE64, ""}),
        ("[1,2]", {FLOAT, ""}),
        ("[0.1234567890123]", {FLOAT, ""}),
    ],
)
def test_in_which_encodings_a_part_can_be_given(vector: str, encodings: set[str]) -> None:
    (part,) = cut(b'{"data":[{"embedding":' + vector.encode() + b"}]}", ["a"])
    assert {encoding for encoding in (FLOAT, BASE64, "") if part.has(encoding)} == encodings
