"""What a request for a Response may say beside what it asks: when it is to be answered, and how it is told."""

from typing import Any

import httpx
import openai
import pytest

from tests.api.responses.asking import over, said
from tests.scripted import marker
from tests.scripted_upstream import ScriptedUpstream
from tests.server import Proxy


@pytest.mark.parametrize("window", ["soonest", "2h", "8h", None])
def test_every_window_of_the_background_is_met_at_once(
    scripted: openai.OpenAI, upstream: ScriptedUpstream, window: str | None
) -> None:
    word, options = marker(), {"completion_window": window, "continuation_id": "c"}
    queued = scripted.responses.create(
        model="m", input=word, background=True, extra_body={"background_options": options}
    )
    assert over(scripted, queued.id).status == "completed"
    (visit,) = upstream.visits(word)
    assert visit.json.keys() == {"model", "input"}


def test_the_window_makes_no_other_entry(scripted: openai.OpenAI, upstream: ScriptedUpstream) -> None:
    word = marker()
    for window in ("soonest", "2h"):
        options = {"background_options": {"completion_window": window}}
        over(scripted, scripted.responses.create(model="m", input=word, background=True, extra_body=options).id)
    assert len(upstream.visits(word)) == 1


@pytest.mark.parametrize(
    ("more", "param"),
    [
        ({"background": True, "background_options": "2h"}, "background_options"),
        ({"background_options": {"completion_window": "2h"}}, "background_options.completion_window"),
        (
            {"background": True, "stream": True, "background_options": {"completion_window": "8h"}},
            "background_options.completion_window",
        ),
    ],
    ids=["no object", "foreground", "stream"],
)
def test_options_that_contradict_the_request_are_refused(
    scripted: openai.OpenAI, upstream: ScriptedUpstream, more: dict[str, Any], param: str
) -> None:
    word = marker()
    with pytest.raises(openai.BadRequestError) as caught:
        scripted.responses.create(model="m", input=word, extra_body=more)
    assert caught.value.param == param
    assert upstream.visits(word) == []


@pytest.mark.parametrize("wanted", [True, False, None])
def test_the_events_that_are_kept_have_no_padding(scripted: openai.OpenAI, front: Proxy, wanted: bool | None) -> None:
    prompt = f"{marker()} [script:oddity=padded]"
    told: list[Any] = list(scripted.responses.create(model="m", input=prompt, background=True, stream=True))
    asked: dict[str, Any] = {} if wanted is None else {"include_obfuscation": wanted}
    again: list[Any] = list(scripted.responses.retrieve(told[0].response.id, stream=True, **asked))
    assert again == told
    assert said(again) == again[-1].response.output_text != ""
    assert not any("obfuscation" in event.to_dict() for event in again)


def test_padding_is_wanted_or_not(scripted: openai.OpenAI, front: Proxy) -> None:
    *_, last = scripted.responses.create(model="m", input=marker(), background=True, stream=True)
    assert last.type == "response.completed"
    query = {"stream": "true", "include_obfuscation": "perhaps"}
    answer = httpx.get(f"{front.url}/v1/responses/{last.response.id}", params=query, trust_env=False)
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, "include_obfuscation")


def deeply_nested(member: str, **more: object) -> dict[str, Any]:
    deep = list[Any]()
    for _ in range(252):
        deep = [deep]
    return {"model": "m", "input": marker(), member: deep, **more}


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("member", ["metadata", "tools"])
def test_what_cannot_be_kept_for_later_is_refused(
    front: Proxy, upstream: ScriptedUpstream, stream: bool, member: str
) -> None:
    body = deeply_nested(member, stream=stream, background=True)
    answer = httpx.post(f"{front.url}/v1/responses", json=body, trust_env=False)
    assert answer.status_code == 400
    assert answer.json()["error"] == {
        "message": "The request body is nested too deeply.",
        "type": "invalid_request_error",
        "param": None,
        "code": None,
    }
    assert upstream.visits(body["input"]) == []


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("member", ["metadata", "tools"])
def test_how_deep_a_request_may_be_nested_is_the_servers_to_say(
    front: Proxy, upstream: ScriptedUpstream, stream: bool, member: str
) -> None:
    body = deeply_nested(member, stream=stream)
    answer = httpx.post(f"{front.url}/v1/responses", json=body, trust_env=False)
    assert answer.status_code == 200
    assert answer.headers["x-cache"] == "BYPASS"
    (visit,) = upstream.visits(body["input"])
    assert visit.json[member] == body[member]
