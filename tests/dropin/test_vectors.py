"""Embeddings and rankings through the proxy are what the model server itself would have answered."""

import asyncio
import base64
import json
import struct
from typing import Any

import httpx
import openai
import pytest

from tests.scripted import marker
from tests.scripted_upstream import ScriptedUpstream, Visit

Json = dict[str, Any]
PATH = "/v1/embeddings"


def items(visit: Visit, vector: Any) -> bytes:
    """An answer with this vector for each input."""
    given = visit.json["input"]
    count = len(given) if isinstance(given, list) else 1
    data = [{"object": "embedding", "index": at, "embedding": vector} for at in range(count)]
    return json.dumps({"object": "list", "model": "m", "data": data, "usage": {"prompt_tokens": 3}}).encode()


async def twice(http: httpx.AsyncClient, body: Json, path: str = PATH) -> tuple[httpx.Response, httpx.Response]:
    first, second = [await http.post(path, json=body) for _ in range(2)]
    assert first.status_code == second.status_code == 200, (first.text, second.text)
    return first, second


@pytest.mark.parametrize(
    "asked",
    [
        {"embed_dtype": "float16", "encoding_format": "base64"},
        {"output_dtype": "int8"},
        {"output_dtype": "ubinary", "encoding_format": "base64"},
        {"encoding_format": "base64_float16"},
        {"encoding_format": 7},
        {"embedding_types": ["int8"]},
    ],
    ids=str,
)
async def test_another_number_type_is_passed_on_and_not_kept(
    upstream: ScriptedUpstream, http: httpx.AsyncClient, asked: Json
) -> None:
    word, seen = marker(), []

    def answer(visit: Visit) -> bytes:
        seen.append(visit.json)
        return items(visit, "ADgANA==")

    upstream.answer_with(word, answer)
    body = {"model": "m", "input": [word], **asked}
    first, second = await twice(http, body)
    assert first.json()["data"][0]["embedding"] == second.json()["data"][0]["embedding"] == "ADgANA=="
    assert first.headers["x-cache"] == second.headers["x-cache"] == "BYPASS"
    assert seen == [body, body]


@pytest.mark.parametrize("vector", [[[0.5, 0.25]], None, {"indices": [1], "values": [0.5]}, [], [0.5, None]], ids=str)
async def test_what_is_no_vector_is_passed_on_and_not_kept(
    upstream: ScriptedUpstream, http: httpx.AsyncClient, vector: Any
) -> None:
    word = marker()
    upstream.answer_with(word, lambda visit: items(visit, vector))
    for answer in await twice(http, {"model": "m", "input": [word, word]}):
        assert [item["embedding"] for item in answer.json()["data"]] == [vector, vector]
        assert answer.headers["x-cache"] == "MISS"
        assert "not-float32" in answer.headers["cache-status"]


@pytest.mark.parametrize("text", ["", "abc", "AAA=", "no base64!", "AAAAAAA="])
async def test_a_text_that_is_no_vector_is_never_kept(
    upstream: ScriptedUpstream, http: httpx.AsyncClient, text: str
) -> None:
    word = marker()
    body = {"model": "m", "input": [word]}
    upstream.answer_with(word, lambda visit: items(visit, text))
    refused = await http.post(PATH, json=body)
    passed = await http.post(PATH, json=body | {"encoding_format": "base64"})
    assert (refused.status_code, passed.status_code) == (502, 200)
    assert passed.json()["data"][0]["embedding"] == text
    upstream.answer_with(word, lambda visit: items(visit, [0.5]))
    for encoding in ("float", "base64"):
        answer = await http.post(PATH, json=body | {"encoding_format": encoding})
        assert (answer.status_code, answer.headers["x-cache"]) == (200, "MISS" if encoding == "float" else "HIT")


@pytest.mark.parametrize(
    ("path", "form"),
    [
        (PATH, '{"object":"list","data":[{"index":0,"embedding":%s}],"model":"m"}'),
        ("/api/embed", '{"model":"m","embeddings":[%s]}'),
        ("/api/embeddings", '{"embedding":%s}'),
    ],
)
async def test_numbers_stay_as_they_were_printed(
    upstream: ScriptedUpstream, http: httpx.AsyncClient, path: str, form: str
) -> None:
    word, vector = marker(), "[0.012345678901234567, 1E-7,-0.0, 1.50,3]"
    upstream.answer_with(word, lambda _: (form % vector).encode())
    miss, hit = await twice(http, {"model": "m", "input": word, "prompt": word} if path != PATH else _only(word), path)
    assert (miss.headers["x-cache"], hit.headers["x-cache"]) == ("MISS", "HIT")
    assert vector in miss.text
    assert vector in hit.text
    assert miss.content == hit.content


def _only(word: str) -> Json:
    return {"model": "m", "input": word}


async def test_doubles_are_no_base64(upstream: ScriptedUpstream, http: httpx.AsyncClient) -> None:
    word = marker()
    doubles = [0.12345678901234567, 0.5]
    as_text = base64.b64encode(struct.pack("<2d", *doubles)).decode()
    upstream.answer_with(
        word, lambda visit: items(visit, as_text if visit.json.get("encoding_format") == "base64" else doubles)
    )
    body = {"model": "m", "input": [word]}
    for expected in ("MISS", "HIT"):
        for encoding, vector in (("float", doubles), ("base64", as_text)):
            answer = await http.post(PATH, json=body | {"encoding_format": encoding})
            assert answer.headers["x-cache"] == expected
            assert answer.json()["data"][0]["embedding"] == vector


async def test_the_upstream_is_asked_for_the_encoding_that_the_client_asked_for(
    upstream: ScriptedUpstream, http: httpx.AsyncClient
) -> None:
    for asked in ({}, {"encoding_format": "float"}, {"encoding_format": "base64"}, {"encoding_format": None}):
        word = marker()
        body = {"model": "scripted", "input": [word], **asked}
        await http.post(PATH, json=body)
        assert [visit.json for visit in upstream.visits(word)] == [body]


@pytest.mark.parametrize("index", [0, None])
async def test_items_numbered_alike_go_by_their_order(
    upstream: ScriptedUpstream, http: httpx.AsyncClient, index: int | None
) -> None:
    word = marker()
    texts = [f"{word} {number}" for number in range(3)]

    def answer(visit: Visit) -> bytes:
        data = [{"embedding": [float(text[-1]) + 0.5], "index": index} for text in visit.json["input"]]
        return json.dumps({"data": data, "served_by": "gateway"}).encode()

    upstream.answer_with(word, answer)
    miss, hit = await twice(http, {"model": "m", "input": texts})
    turned = await http.post(PATH, json={"model": "m", "input": texts[::-1]})
    for heard, vectors in ((miss, [0.5, 1.5, 2.5]), (hit, [0.5, 1.5, 2.5]), (turned, [2.5, 1.5, 0.5])):
        assert [item["embedding"][0] for item in heard.json()["data"]] == vectors
        assert heard.json()["served_by"] == "gateway"
        assert "usage" not in heard.json()
    assert (hit.headers["x-cache"], turned.headers["x-cache"]) == ("HIT", "HIT")


@pytest.mark.parametrize(
    "answer",
    [
        b'[{"index":0,"embedding":[[0.5,0.25]]}]',
        b'{"embedding":[0.5]}',
        b'{"data":[{"index":0,"embedding":[0.5]}]}',
        b'{"data":[{"index":1,"embedding":[0.5]},{"index":2,"embedding":[0.5]}]}',
        b'{"data":[]}',
    ],
    ids=["a bare list", "one vector", "too few", "other numbers", "none"],
)
async def test_another_form_of_answer_is_passed_on(
    upstream: ScriptedUpstream, http: httpx.AsyncClient, answer: bytes
) -> None:
    word = marker()
    upstream.answer_with(word, lambda _: answer)
    for heard in await twice(http, {"model": "m", "input": [word, "two"]}):
        assert heard.content == answer
        assert heard.headers["x-cache"] == "MISS"


async def test_a_batch_of_more_than_64_mib_is_passed_on(upstream: ScriptedUpstream, http: httpx.AsyncClient) -> None:
    word = marker()
    vector = b"[" + b"0.123456789," * 450_000 + b"0.5]"

    def answer_of(visit: Visit) -> bytes:
        data = [b'{"index":%d,"embedding":%b}' % (at, vector) for at in range(len(visit.json["input"]))]
        return b'{"data":[%b]}' % b",".join(data)

    upstream.answer_with(word, answer_of)
    known = await http.post(PATH, json={"model": "m", "input": [f"{word} 0"]})
    assert known.headers["cache-status"].endswith("stored")
    answer = await http.post(PATH, json={"model": "m", "input": [f"{word} {number}" for number in range(15)]})
    assert answer.status_code == 200
    assert len(answer.content) > 64 * 1024 * 1024
    assert answer.content.count(b'"embedding":') == 15


async def test_inputs_that_belong_together_are_not_taken_apart(
    upstream: ScriptedUpstream, http: httpx.AsyncClient
) -> None:
    """With late chunking a text's vector depends on the texts beside it."""
    word = marker()
    upstream.answer_with(word, lambda visit: items(visit, [len(visit.json["input"]) + 0.5]))
    for expected in ("MISS", "HIT"):
        for count in (1, 2, 3):
            body = {"model": "m", "late_chunking": True, "input": [word, "b", "c"][:count]}
            answer = await http.post(PATH, json=body)
            assert answer.headers["x-cache"] == expected
            assert answer.json()["data"][0]["embedding"] == [count + 0.5]


async def test_a_request_of_another_form_is_kept_for_its_own_encoding(
    upstream: ScriptedUpstream, http: httpx.AsyncClient
) -> None:
    """vLLM embeds messages, too: there is no input to keep the answer by."""
    word = marker()
    upstream.answer_with(
        word,
        lambda visit: json.dumps(
            {"data": [{"embedding": "AAAAPw==" if visit.json.get("encoding_format") == "base64" else [0.5]}]}
        ).encode(),
    )
    body = {"model": "m", "messages": [{"role": "user", "content": word}]}
    for expected in ("MISS", "HIT"):
        for encoding, vector in (("float", [0.5]), ("base64", "AAAAPw==")):
            answer = await http.post(PATH, json=body | {"encoding_format": encoding})
            assert answer.headers["x-cache"] == expected
            assert answer.json()["data"][0]["embedding"] == vector


async def test_numbers_and_texts_in_one_list_are_one_input(upstream: ScriptedUpstream, http: httpx.AsyncClient) -> None:
    word = marker()
    upstream.answer_with(word, lambda _: b'{"data":[{"index":0,"embedding":[0.5]}]}')
    await http.post(PATH, json={"model": "m", "input": [word]})
    for heard in await twice(http, {"model": "m", "input": [word, 5]}):
        assert len(heard.json()["data"]) == 1


async def test_many_at_once_are_one_call(upstream: ScriptedUpstream, http: httpx.AsyncClient) -> None:
    gate = upstream.gate()
    word = f"{marker()} [script:gate={gate.name}]"
    body = {"model": "scripted", "input": [word, "b"]}
    asking = [asyncio.create_task(http.post(PATH, json=body)) for _ in range(8)]
    await gate.arrived.reached()
    gate.open()
    answers = await asyncio.gather(*asking)
    assert all(answer.json() == answers[0].json() for answer in answers)
    assert len(upstream.visits(word)) == 1


@pytest.mark.parametrize("encoding", ["float", "base64", None])
async def test_the_sdk_reads_every_form(upstream: ScriptedUpstream, http: httpx.AsyncClient, encoding: Any) -> None:
    word = marker()
    asked: Json = {} if encoding is None else {"encoding_format": encoding}
    client = openai.AsyncOpenAI(base_url=f"{http.base_url}/v1".replace("//v1", "/v1"), api_key="none")
    async with client:
        answers = [await client.embeddings.create(model="scripted", input=[word, "b"], **asked) for _ in range(2)]
    assert answers[0].data == answers[1].data
    assert answers[0].usage == answers[1].usage


@pytest.mark.parametrize("path", ["/rerank", "/v1/rerank"])
async def test_a_ranking_that_is_a_bare_list(upstream: ScriptedUpstream, http: httpx.AsyncClient, path: str) -> None:
    """Text Embeddings Inference: texts instead of documents, a list instead of an object."""
    word = marker()
    ranking = b'[{"index":1,"score":0.9987654321098765},{"index":0,"score":1e-7}]'
    upstream.answer_with(word, lambda _: ranking)
    body = {"query": word, "texts": ["a", "b"], "raw_scores": False}
    miss, hit = await twice(http, body, path)
    assert (miss.headers["x-cache"], hit.headers["x-cache"]) == ("MISS", "HIT")
    assert miss.content == hit.content == ranking
    other = await http.post(path, json=body | {"texts": ["a", "c"]})
    assert other.headers["x-cache"] == "MISS"


@pytest.mark.parametrize("answer", [b"[]", b"[1]", b'[{"error":"no"}]', b'"ok"', b"null"])
async def test_a_list_that_is_no_ranking_is_passed_on(
    upstream: ScriptedUpstream, http: httpx.AsyncClient, answer: bytes
) -> None:
    word = marker()
    upstream.answer_with(word, lambda _: answer)
    for heard in await twice(http, {"query": word, "texts": ["a"]}, "/rerank"):
        assert (heard.content, heard.headers["x-cache"]) == (answer, "MISS")
