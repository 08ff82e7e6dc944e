"""Stored Responses on a scripted upstream: what is sent there, what is refused, and what is found when."""

import json
from typing import Any

import httpx
import openai
import pytest

from tests.api.responses.asking import client_of, over
from tests.conftest import MakeProxy
from tests.databases import ruin_sqlite
from tests.scripted import events, marker
from tests.scripted_upstream import ScriptedUpstream
from tests.server import Proxy


def test_the_upstream_gets_the_conversation_and_nothing_that_is_ours(
    scripted: openai.OpenAI, upstream: ScriptedUpstream
) -> None:
    words = [marker() for _ in range(3)]
    first = scripted.responses.create(model="m", input=words[0], instructions="Be brief.")
    items: Any = [{"role": "user", "content": words[1]}]
    second = scripted.responses.create(model="m", input=items, previous_response_id=first.id, store=True)
    scripted.responses.create(model="m", input=words[2], previous_response_id=second.id, background=False)
    body = upstream.visits(words[2])[0].json
    assert body.keys() == {"model", "input"}
    said = [
        item["content"] if isinstance(item["content"], str) else item["content"][0]["text"] for item in body["input"]
    ]
    assert said == [words[0], first.output_text, words[1], second.output_text, words[2]]
    assert [item["role"] for item in body["input"]] == ["user", "assistant", "user", "assistant", "user"]


def test_a_request_that_says_nothing_of_keeping_goes_on_as_it_came(
    scripted: openai.OpenAI, upstream: ScriptedUpstream
) -> None:
    word = marker()
    scripted.responses.create(model="m", input=word)
    assert upstream.visits(word)[0].json == {"input": word, "model": "m"}


def test_stored_or_not_it_is_the_same_entry(scripted: openai.OpenAI) -> None:
    word, states, ids = marker(), [], []
    for store in (False, True, False):
        raw = scripted.responses.with_raw_response.create(model="m", input=word, store=store)
        states.append(raw.headers["x-cache"])
        ids.append(raw.parse().id)
    assert states == ["MISS", "HIT", "HIT"]
    assert ids[0] == ids[2] != ids[1]


def test_not_stored_it_may_still_go_on_with_a_conversation(scripted: openai.OpenAI) -> None:
    first = scripted.responses.create(model="m", input=marker())
    second = scripted.responses.create(model="m", input=marker(), previous_response_id=first.id, store=False)
    assert (second.previous_response_id, second.to_dict().get("store")) == (first.id, None)
    with pytest.raises(openai.NotFoundError):
        scripted.responses.retrieve(second.id)


def test_a_conversation_that_lives_upstream_passes_through(scripted: openai.OpenAI, upstream: ScriptedUpstream) -> None:
    word = marker()
    raw = scripted.responses.with_raw_response.create(model="m", input=word, conversation="conv_1", store=True)
    assert raw.headers["x-cache"] == "BYPASS"
    assert upstream.visits(word)[0].json == {"model": "m", "input": word, "conversation": "conv_1", "store": True}
    with pytest.raises(openai.NotFoundError):
        scripted.responses.retrieve(raw.parse().id)


def refused(client: openai.OpenAI, **more: Any) -> openai.BadRequestError:
    with pytest.raises(openai.BadRequestError) as caught:
        client.responses.create(**{"model": "m", "input": "hi", **more})
    return caught.value


def test_an_unknown_previous_response_is_refused_by_name(scripted: openai.OpenAI, upstream: ScriptedUpstream) -> None:
    for id in ("resp_unknown", "no id\0", "resp_" + "x" * 300):
        word = marker()
        error = refused(scripted, input=word, previous_response_id=id)
        assert error.body == {
            "message": f"Previous response with id '{id[:100]}' not found.",
            "type": "invalid_request_error",
            "param": "previous_response_id",
            "code": "previous_response_not_found",
        }
        assert upstream.visits(word) == []


def test_what_contradicts_itself_is_refused(scripted: openai.OpenAI) -> None:
    first = scripted.responses.create(model="m", input=marker())
    both = refused(scripted, previous_response_id=first.id, conversation="conv_1")
    assert (both.param, both.code) == ("previous_response_id", None)
    assert refused(scripted, store="yes").param == "store"
    assert refused(scripted, background="yes").param == "background"
    assert refused(scripted, input=[7], previous_response_id=first.id).param == "input"


def test_a_conversation_with_a_hole_is_refused(scripted: openai.OpenAI) -> None:
    first = scripted.responses.create(model="m", input=marker())
    second = scripted.responses.create(model="m", input=marker(), previous_response_id=first.id)
    scripted.responses.delete(first.id)
    assert first.id in refused(scripted, previous_response_id=second.id).message


def test_input_of_an_unknown_form_is_the_upstreams_to_judge(front: Proxy, upstream: ScriptedUpstream) -> None:
    word = marker()
    body = {"model": "m", "input": [word]}
    answer = httpx.post(f"{front.url}/v1/responses", json=body, trust_env=False)
    assert answer.status_code == 200
    assert upstream.visits(word)[0].json == body
    assert httpx.get(f"{front.url}/v1/responses/{answer.json()['id']}", trust_env=False).status_code == 404


async def test_a_stream_is_found_once_it_is_complete(front: Proxy, upstream: ScriptedUpstream) -> None:
    gate = upstream.gate()
    body = {"model": "m", "input": f"{marker()} [script:gate={gate.name} gate-after=5]", "stream": True}
    async with (
        httpx.AsyncClient(base_url=front.url, timeout=60, trust_env=False) as http,
        http.stream("POST", "/v1/responses", json=body) as response,
    ):
        pieces = response.aiter_bytes()
        text = await anext(pieces)
        (_, opening), *_ = events(text[: text.rindex(b"\n\n") + 2])
        assert opening is not None
        id = opening["response"]["id"]
        early = await http.get(f"/v1/responses/{id}")
        gate.open()
        async for piece in pieces:
            text += piece
        late = await http.get(f"/v1/responses/{id}")
        followed = await http.get(f"/v1/responses/{id}", params={"stream": "true"})
    assert (early.status_code, late.status_code) == (404, 200)
    *_, (_, ending) = events(text)
    assert ending is not None
    assert late.json() == ending["response"]
    assert followed.status_code == 400
    assert followed.json()["error"]["param"] == "stream"


def test_one_that_is_too_large_to_be_kept_is_counted(upstream: ScriptedUpstream, proxy: MakeProxy) -> None:
    own = proxy(upstream.url, cache_entry_bytes=10_000)
    with client_of(own) as client:
        prompt = f"{marker()} [script:size=200000]"
        *_, last = client.responses.create(model="m", input=prompt, stream=True)
        assert last.type == "response.completed"
        with pytest.raises(openai.NotFoundError):
            client.responses.retrieve(last.response.id)
    metrics = httpx.get(f"{own.url}/metrics", trust_env=False).text
    assert "llmproxy_stored_answers_lost_total 1.0" in metrics.splitlines()


@pytest.mark.parametrize("fault", ["cut", "no-terminal", "failed", "error-event"])
def test_nothing_is_found_of_what_broke_off(scripted: openai.OpenAI, upstream: ScriptedUpstream, fault: str) -> None:
    gate = upstream.gate()
    prompt = f"{marker()} [script:{fault} after=4 gate={gate.name}]"
    stream = iter(scripted.responses.create(model="m", input=prompt, stream=True))
    opening: Any = next(stream)
    id = opening.response.id
    gate.open()
    if fault == "failed":
        # what the server itself says of its failure is handed on, under the id of the other events
        last: Any = list(stream)[-1]
        assert (last.type, last.response.id, last.response.status) == ("response.failed", id, "failed")
        assert last.response.error.message == "the model fell over"
    else:
        with pytest.raises(openai.APIError):
            list(stream)
    with pytest.raises(openai.NotFoundError):
        scripted.responses.retrieve(id)


def test_one_of_the_foreground_cannot_be_cancelled(scripted: openai.OpenAI) -> None:
    made = scripted.responses.create(model="m", input=marker())
    with pytest.raises(openai.BadRequestError, match="Cannot cancel a synchronous response"):
        scripted.responses.cancel(made.id)


def test_a_restart_keeps_what_was_stored(upstream: ScriptedUpstream, proxy: MakeProxy) -> None:
    own = proxy(upstream.url)
    with client_of(own) as client:
        made = [client.responses.create(model="m", input=marker()) for _ in range(20)]
    own.stop()
    own.start()
    with client_of(own) as client:
        assert [client.responses.retrieve(each.id) for each in made] == made
        assert client.responses.create(model="m", input=marker(), previous_response_id=made[0].id).output_text


def test_without_a_database_all_but_the_background_goes_on(upstream: ScriptedUpstream, proxy: MakeProxy) -> None:
    own = proxy(upstream.url, shutdown_seconds=0.5)
    with client_of(own) as client:
        ruin_sqlite(own.database)
        first = client.responses.create(model="m", input=marker())
        assert client.responses.retrieve(first.id) == first
        second = client.responses.create(model="m", input=marker(), previous_response_id=first.id)
        assert second.output_text
        with pytest.raises(openai.InternalServerError) as caught:
            client.responses.create(model="m", input=marker(), background=True)
        assert (caught.value.status_code, caught.value.code) == (503, "store_unavailable")


def test_nobody_sees_the_responses_of_another_key(upstream: ScriptedUpstream, proxy: MakeProxy) -> None:
    own = proxy(upstream.url, api_keys="ann:one,bob:two")
    with client_of(own, "one") as ann, client_of(own, "two") as bob:
        plain = ann.responses.create(model="m", input=marker())
        behind = ann.responses.create(model="m", input=marker(), background=True)
        for id in (plain.id, behind.id):
            for ask in (bob.responses.retrieve, bob.responses.delete, bob.responses.cancel):
                with pytest.raises(openai.NotFoundError):
                    ask(id)
            with pytest.raises(openai.NotFoundError):
                bob.responses.input_items.list(id)
            assert refused(bob, previous_response_id=id).code == "previous_response_not_found"
            assert ann.responses.retrieve(id).id == id


def test_storing_can_be_switched_off(upstream: ScriptedUpstream, proxy: MakeProxy) -> None:
    with client_of(proxy(upstream.url, store_answers="false")) as client:
        made = client.responses.create(model="m", input=marker())
        with pytest.raises(openai.NotFoundError):
            client.responses.retrieve(made.id)
        asked_for = client.responses.create(model="m", input=marker(), store=True)
        assert client.responses.retrieve(asked_for.id) == asked_for


@pytest.mark.parametrize(
    ("query", "param"),
    [
        ({"stream": "maybe"}, "stream"),
        ({"limit": "0"}, "limit"),
        ({"limit": "101"}, "limit"),
        ({"limit": "-1"}, "limit"),
        ({"order": "up"}, "order"),
    ],
)
def test_a_query_that_is_none_is_refused(
    scripted: openai.OpenAI, front: Proxy, query: dict[str, str], param: str
) -> None:
    id = scripted.responses.create(model="m", input=marker()).id
    path = f"/v1/responses/{id}" + ("" if param == "stream" else "/input_items")
    answer = httpx.get(f"{front.url}{path}", params=query, trust_env=False)
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, param)


@pytest.mark.parametrize(("method", "path"), [("POST", "/v1/responses/compact"), ("GET", "/v1/responses")])
def test_what_is_not_ours_passes_through(front: Proxy, upstream: ScriptedUpstream, method: str, path: str) -> None:
    word = marker()
    answer = httpx.request(method, f"{front.url}{path}?{word}", trust_env=False)
    assert len(upstream.visits(word)) == 1
    assert answer.headers["x-cache"] == "BYPASS"


NESTED = b'{"id":"resp_1","object":"response","status":"completed","model":"m","output":[],"x":%b}' % (
    b"[" * 400 + b"]" * 400
)


@pytest.mark.parametrize("background", [False, True])
def test_a_deeply_nested_one_can_be_asked_for_again(front: Proxy, upstream: ScriptedUpstream, background: bool) -> None:
    word = marker()
    upstream.answer_with(word, lambda visit: NESTED)
    with httpx.Client(base_url=front.url, trust_env=False) as http:
        made = http.post("/v1/responses", json={"model": "m", "input": word, "background": background, "store": True})
        assert made.status_code == 200
        path = f"/v1/responses/{made.json()['id']}"
        with client_of(front) as client:
            over(client, made.json()["id"])
        found = http.get(path)
        assert found.status_code == 200
        assert found.json()["x"] == json.loads(NESTED)["x"]
        assert http.get(f"{path}/input_items").status_code == 200


def test_an_error_in_the_place_of_one_gets_no_id_of_ours(front: Proxy, upstream: ScriptedUpstream) -> None:
    word, error = marker(), b'{"error": {"message": "no", "code": 7}}'
    upstream.answer_with(word, lambda visit: error)
    with httpx.Client(base_url=front.url, trust_env=False) as http:
        made = http.post("/v1/responses", json={"model": "m", "input": word})
    assert (made.status_code, made.content) == (200, error)
