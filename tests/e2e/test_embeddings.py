"""Embeddings on real llama.cpp: cached per input, in either rendering."""

import base64
import struct
from typing import Any

import httpx
import openai
import pytest

from tests.llama import EMBEDDING_MODEL
from tests.scripted import marker
from tests.server import Proxy


def vectors(answer: openai.types.CreateEmbeddingResponse) -> list[list[float]]:
    return [item.embedding for item in answer.data]


def test_a_miss_a_hit_and_576_dimensions(client: openai.OpenAI) -> None:
    text = marker()
    miss = client.embeddings.with_raw_response.create(model=EMBEDDING_MODEL, input=text)
    hit = client.embeddings.with_raw_response.create(model=EMBEDDING_MODEL, input=text)
    assert (miss.headers["x-cache"], hit.headers["x-cache"]) == ("MISS", "HIT")
    assert vectors(miss.parse()) == vectors(hit.parse())
    assert len(miss.parse().data[0].embedding) == 576
    assert miss.parse().usage == hit.parse().usage
    assert miss.parse().usage.prompt_tokens > 0


def test_a_text_and_a_list_of_it_are_the_same(client: openai.OpenAI) -> None:
    text = marker()
    one = client.embeddings.create(model=EMBEDDING_MODEL, input=text)
    many = client.embeddings.with_raw_response.create(model=EMBEDDING_MODEL, input=[text])
    assert many.headers["x-cache"] == "HIT"
    assert vectors(many.parse()) == vectors(one)


def test_floats_and_base64_are_renderings_of_one_vector(client: openai.OpenAI, llama_front: Proxy) -> None:
    text = marker()
    client.embeddings.create(model=EMBEDDING_MODEL, input=text)
    rendered: dict[str, Any] = {}
    for encoding in ("float", "base64"):
        body = {"model": EMBEDDING_MODEL, "input": text, "encoding_format": encoding}
        answer = httpx.post(f"{llama_front.url}/v1/embeddings", json=body, timeout=60)
        assert answer.headers["x-cache"] == "HIT"
        rendered[encoding] = answer.json()["data"][0]["embedding"]
    packed = base64.b64decode(rendered["base64"])
    assert list(struct.unpack(f"<{len(packed) // 4}f", packed)) == rendered["float"]


def test_known_inputs_are_not_sent_again(client: openai.OpenAI) -> None:
    word = marker()
    known = [f"{word} {number}" for number in range(6)]
    first = client.embeddings.create(model=EMBEDDING_MODEL, input=known)
    mixed = [f"{word} {number}" for number in range(10)][::-1]
    second = client.embeddings.with_raw_response.create(model=EMBEDDING_MODEL, input=mixed)
    assert second.headers["x-cache"] == "MISS"
    answer = second.parse()
    assert [item.index for item in answer.data] == list(range(10))
    assert vectors(answer)[4:] == vectors(first)[::-1]
    again = client.embeddings.with_raw_response.create(model=EMBEDDING_MODEL, input=mixed)
    assert again.headers["x-cache"] == "HIT"
    assert again.parse().usage == answer.usage


def test_token_lists_are_not_texts(client: openai.OpenAI) -> None:
    first = client.embeddings.with_raw_response.create(model=EMBEDDING_MODEL, input=[[1, 2, 3], [1, 2, 4]])
    again = client.embeddings.with_raw_response.create(model=EMBEDDING_MODEL, input=[1, 2, 4])
    assert (first.headers["x-cache"], again.headers["x-cache"]) == ("MISS", "HIT")
    assert vectors(again.parse())[0] == vectors(first.parse())[1]


async def test_the_asynchronous_client(async_client: openai.AsyncOpenAI) -> None:
    text = marker()
    first = await async_client.embeddings.create(model=EMBEDDING_MODEL, input=text)
    again = await async_client.embeddings.create(model=EMBEDDING_MODEL, input=text)
    assert vectors(first) == vectors(again)


def test_a_chat_server_refuses_embeddings_once(llama_front: Proxy) -> None:
    """llama.cpp says 501; without ``x-should-retry: false`` the SDK would ask three times."""
    asked: list[Any] = []
    counting = openai.DefaultHttpxClient(event_hooks={"request": [asked.append]})
    with (
        openai.OpenAI(base_url=f"{llama_front.url}/v1", api_key="none", http_client=counting) as retrying,
        pytest.raises(openai.InternalServerError, match="does not support embeddings"),
    ):
        retrying.embeddings.create(model="smollm2", input=marker())
    assert len(asked) == 1
