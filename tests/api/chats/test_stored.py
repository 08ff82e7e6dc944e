"""Stored chat completions: an id of their own in whatever form they come, found once they are complete."""

import asyncio
import json
from typing import Any

import httpx
import openai
import pytest

from tests.api.chats.asking import chat, client_of, parse_metadata, stored
from tests.conftest import MakeProxy
from tests.faults.outcome import joined
from tests.scripted import CHAT, events, marker
from tests.scripted_upstream import ScriptedUpstream
from tests.server import Proxy

PATH = "/v1/chat/completions"


async def post(http: httpx.AsyncClient, body: dict[str, Any], **headers: str) -> httpx.Response:
    return await http.post(PATH, json=body, headers=headers)


def frames(answer: httpx.Response) -> list[dict[str, Any]]:
    return [document for _, document in events(answer.content) if document is not None]


def first_chunk(piece: bytes) -> dict[str, Any]:
    ((_, chunk),) = events(piece[: piece.index(b"\n\n") + 2])
    assert chunk is not None
    return chunk


@pytest.mark.parametrize("first", ["plain", "stream"])
async def test_every_form_of_one_answer_has_an_id_of_its_own(http: httpx.AsyncClient, first: str) -> None:
    word, ids, texts, states = marker(), [], set(), []
    for stream, replay in ((first == "stream", "fast"), (False, "fast"), (True, "fast"), (True, "paced")):
        more = {"stream": True, "stream_options": {"include_usage": True}} if stream else {}
        answer = await post(http, chat(word, **more), **{"x-llmproxy-replay": replay})
        states.append(answer.headers["x-cache"])
        chunks = frames(answer) if stream else [answer.json()]
        (id,) = {chunk["id"] for chunk in chunks}
        assert not any({"metadata", "store", "request_id"} & chunk.keys() for chunk in chunks)
        text = "".join(map(CHAT.delta, chunks)) if stream else CHAT.text(chunks[0])
        document = (await http.get(f"{PATH}/{id}")).json()
        assert (document["id"], document["object"]) == (id, "chat.completion")
        assert CHAT.text(document) == text
        assert document["usage"]["prompt_tokens"] == 7
        ids.append(id)
        texts.add(text)
    assert states == ["MISS", "HIT", "HIT", "HIT"]
    assert len(texts) == 1
    assert len(set(ids)) == 4


async def test_those_who_share_a_call_have_an_id_each(
    http: httpx.AsyncClient, front: Proxy, upstream: ScriptedUpstream
) -> None:
    gate, word = upstream.gate(), marker()
    prompt = f"{word} [script:gate={gate.name}]"
    asked = [chat(prompt), chat(prompt, stream=True), chat(prompt, store=False)]
    async with httpx.AsyncClient(base_url=front.url, timeout=60, trust_env=False) as wide:
        waiting = [asyncio.create_task(post(wide, body)) for body in asked]
        await joined(http, CHAT, 3)
        gate.open()
        plain, streamed, other = await asyncio.gather(*waiting)
    assert len(upstream.visits(word)) == 1
    (chunk_id,) = {chunk["id"] for chunk in frames(streamed)}
    ids = [plain.json()["id"], chunk_id, other.json()["id"]]
    assert len(set(ids)) == 3
    found = [await http.get(f"{PATH}/{id}") for id in ids]
    assert [answer.status_code for answer in found] == [200, 200, 404]
    assert found[0].json()["choices"] == found[1].json()["choices"]


def test_stored_or_not_it_is_the_same_entry(client: openai.OpenAI, upstream: ScriptedUpstream) -> None:
    word, states, ids = marker(), [], []
    for store in (True, False, True, None):
        raw = client.chat.completions.with_raw_response.create(**chat(word, store=store))
        states.append(raw.headers["x-cache"])
        ids.append(raw.parse().id)
    assert states == ["MISS", "HIT", "HIT", "HIT"]
    # the upstream's own, which numbers its answers
    assert ids[1] == ids[3] == f"chatcmpl-{upstream.visits(word)[0].number}"
    assert len({*ids}) == 3
    with pytest.raises(openai.NotFoundError):
        client.chat.completions.retrieve(ids[1])


async def test_the_very_same_bytes_again_get_another_id(http: httpx.AsyncClient) -> None:
    content = json.dumps(chat(marker())).encode()
    answers = [await http.post(PATH, content=content) for _ in range(5)]
    assert [answer.headers["x-cache"] for answer in answers] == ["MISS", *["HIT"] * 4]
    assert len({answer.json()["id"] for answer in answers}) == 5


def test_the_upstream_gets_the_request_as_it_came(client: openai.OpenAI, upstream: ScriptedUpstream) -> None:
    word = marker()
    stored(client, word, metadata={"a": "b"}, user="ann")
    assert upstream.visits(word)[0].json == chat(word, metadata={"a": "b"}, user="ann")


def test_it_is_shown_with_its_labels_and_what_was_asked(client: openai.OpenAI) -> None:
    raw = client.chat.completions.with_raw_response.create(
        **chat(marker(), metadata={"run": "1"}, temperature=0.5, seed=7, user="ann")
    )
    made = raw.parse()
    assert "metadata" not in made.to_dict()
    shown = client.chat.completions.retrieve(made.id).to_dict()
    assert shown == made.to_dict() | {
        "metadata": {"run": "1"},
        "request_id": raw.headers["x-request-id"],
        "temperature": 0.5,
        "seed": 7,
        "input_user": "ann",
        **dict.fromkeys(("top_p", "presence_penalty", "frequency_penalty", "tools", "tool_choice", "response_format")),
    }


async def test_a_stream_is_found_once_it_is_complete(front: Proxy, upstream: ScriptedUpstream) -> None:
    gate = upstream.gate()
    body = chat(f"{marker()} [script:gate={gate.name} gate-after=3]", stream=True)
    async with (
        httpx.AsyncClient(base_url=front.url, timeout=60, trust_env=False) as http,
        http.stream("POST", PATH, json=body) as response,
    ):
        pieces = response.aiter_bytes()
        id = first_chunk(await anext(pieces))["id"]
        early = await http.get(f"{PATH}/{id}")
        gate.open()
        async for _ in pieces:
            pass
        late = await http.get(f"{PATH}/{id}")
    assert (early.status_code, late.status_code) == (404, 200)


@pytest.mark.parametrize("fault", ["cut", "clean-end", "no-finish", "error-frame", "half-frame"])
async def test_nothing_is_found_of_a_stream_that_broke_off(
    http: httpx.AsyncClient, upstream: ScriptedUpstream, fault: str
) -> None:
    gate, label = upstream.gate(), marker()
    prompt = f"{marker()} [script:{fault} after=3 gate={gate.name}]"
    body = chat(prompt, stream=True, metadata={"test": label})
    async with http.stream("POST", PATH, json=body) as response:
        pieces = response.aiter_bytes()
        id = first_chunk(await anext(pieces))["id"]
        gate.open()
        async for _ in pieces:
            pass
    assert (await http.get(f"{PATH}/{id}")).status_code == 404
    assert (await http.get(PATH, params={"metadata[test]": label})).json()["data"] == []


@pytest.mark.parametrize("fault", ["unfinished", "error-member", "bad-json"])
async def test_nothing_is_kept_of_an_answer_that_is_none(http: httpx.AsyncClient, fault: str) -> None:
    label = marker()
    await post(http, chat(f"{marker()} [script:{fault}]", metadata={"test": label}))
    assert (await http.get(PATH, params={"metadata[test]": label})).json()["data"] == []


def test_labels_that_are_none_are_refused_before_anybody_works(
    client: openai.OpenAI, upstream: ScriptedUpstream
) -> None:
    word = marker()
    with pytest.raises(openai.BadRequestError) as caught:
        stored(client, word, metadata={"a": 1})
    assert (caught.value.param, caught.value.code) == ("metadata.a", "invalid_type")
    assert upstream.visits(word) == []
    # not stored, they are the upstream's affair
    assert stored(client, word, metadata={"a": 1}, store=False).choices


def test_a_restart_keeps_what_was_stored(upstream: ScriptedUpstream, proxy: MakeProxy) -> None:
    own = proxy(upstream.url)
    with client_of(own) as client:
        made = [stored(client, marker(), metadata={"n": str(number)}) for number in range(20)]
        client.chat.completions.update(made[0].id, metadata={"n": "changed"})
        client.chat.completions.delete(made[1].id)
    own.stop()
    own.start()
    with client_of(own) as client:
        listed = list(client.chat.completions.list(limit=7))
        assert [each.id for each in listed] == [made[0].id, *(each.id for each in made[2:])]
        assert [parse_metadata(each)["n"] for each in listed] == ["changed", *map(str, range(2, 20))]
        assert [each.choices for each in listed] == [each.choices for each in (made[0], *made[2:])]


def test_nobody_sees_what_another_key_stored(upstream: ScriptedUpstream, proxy: MakeProxy) -> None:
    own = proxy(upstream.url, api_keys="ann:one,bob:two")
    with client_of(own, "one") as ann, client_of(own, "two") as bob:
        made = stored(ann, marker())
        other: Any = bob.chat.completions
        for ask in (other.retrieve, other.delete, other.messages.list, lambda id: other.update(id, metadata={})):
            with pytest.raises(openai.NotFoundError):
                ask(made.id)
        assert list(other.list()) == []
        assert [each.id for each in ann.chat.completions.list()] == [made.id]


def test_storing_can_be_switched_off(upstream: ScriptedUpstream, proxy: MakeProxy) -> None:
    word = marker()
    with client_of(proxy(upstream.url, store_answers="false")) as client:
        made = stored(client, word)
        assert made.id == f"chatcmpl-{upstream.visits(word)[0].number}"
        assert list(client.chat.completions.list()) == []


def test_without_jobs_the_upstream_is_asked(upstream: ScriptedUpstream, proxy: MakeProxy) -> None:
    url, word = proxy(upstream.url, jobs="false").url, marker()
    for method, path in (("GET", ""), ("GET", "/chatcmpl-1"), ("POST", "/chatcmpl-1"), ("DELETE", "/chatcmpl-1")):
        httpx.request(method, f"{url}{PATH}{path}?{word}{method}{path}", trust_env=False)
        assert len(upstream.visits(f"{word}{method}{path}")) >= 1
