"""Responses of the background on a scripted upstream: cancelled, failed, left alone, killed in the middle."""

import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import openai
import pytest

from tests.api.responses.asking import client_of, numbers, over, said, until
from tests.conftest import MakeProxy
from tests.scripted import marker
from tests.scripted_upstream import Gate, ScriptedUpstream
from tests.server import Proxy


def gated(upstream: ScriptedUpstream, after: int = 0) -> tuple[str, Gate]:
    """A prompt whose answer waits, after so many frames of its stream, until the gate is opened."""
    gate = upstream.gate()
    return f"{marker()} [script:gate={gate.name} gate-after={after}]", gate


@pytest.mark.parametrize("stream", [False, True], ids=["plain", "stream"])
def test_cancelled_in_flight_it_ends_upstream(upstream: ScriptedUpstream, proxy: MakeProxy, stream: bool) -> None:
    with client_of(proxy(upstream.url, disconnect_grace=0.1)) as client:
        prompt, gate = gated(upstream, after=5 if stream else 0)
        id = begun(client, prompt, stream)
        gate.arrived.wait()
        assert until(client, id, lambda response: response.status != "queued").status == "in_progress"
        cancelled = client.responses.cancel(id)
        assert (cancelled.id, cancelled.status, cancelled.output) == (id, "cancelled", [])
        upstream.visits(prompt)[0].left.wait()
        assert client.responses.cancel(id) == client.responses.retrieve(id) == cancelled
        if stream:
            events: list[Any] = list(client.responses.retrieve(id, stream=True))
            assert events[-1].type == "response.failed"
            assert events[-1].response.status == "cancelled"
            assert events[-1].response.output == []
            assert numbers(events) == list(range(len(events)))
            assert list(client.responses.retrieve(id, stream=True, starting_after=len(events) - 1)) == []


def begun(client: openai.OpenAI, prompt: str, stream: bool) -> str:
    """The id of a Response of the background whose caller has left."""
    if not stream:
        return client.responses.create(model="m", input=prompt, background=True).id
    with client.responses.create(model="m", input=prompt, background=True, stream=True) as events:
        first: Any = next(iter(events))
        return str(first.response.id)


def test_cancelled_while_it_is_followed_the_stream_ends(upstream: ScriptedUpstream, proxy: MakeProxy) -> None:
    with client_of(proxy(upstream.url, disconnect_grace=0.1)) as client:
        prompt, gate = gated(upstream, after=5)
        events: list[Any] = []
        for event in client.responses.create(model="m", input=prompt, background=True, stream=True):
            events.append(event)
            if event.type == "response.output_text.delta":
                client.responses.cancel(events[0].response.id)
        gate.open()
        assert events[-1].type == "response.failed"
        assert events[-1].response.status == "cancelled"


def test_cancelled_in_the_queue_it_is_never_made(upstream: ScriptedUpstream, proxy: MakeProxy) -> None:
    with client_of(proxy(upstream.url, task_queue_workers=0)) as client:
        word = marker()
        id = begun(client, word, stream=True)
        assert client.responses.retrieve(id).status == "queued"
        with pytest.raises(openai.BadRequestError, match="in progress"):
            client.responses.delete(id)
        assert client.responses.cancel(id).status == "cancelled"
        kinds = [event.type for event in client.responses.retrieve(id, stream=True)]
        assert kinds == ["response.created", "response.queued", "response.failed"]
        client.responses.delete(id)
        assert upstream.visits(word) == []


def test_what_is_over_cannot_be_cancelled(scripted: openai.OpenAI) -> None:
    made = over(scripted, scripted.responses.create(model="m", input=marker(), background=True).id)
    with pytest.raises(openai.BadRequestError, match="Cannot cancel a completed response"):
        scripted.responses.cancel(made.id)


def test_a_client_that_leaves_does_not_stop_it(scripted: openai.OpenAI, upstream: ScriptedUpstream) -> None:
    prompt, gate = gated(upstream, after=5)
    id = begun(scripted, prompt, stream=True)
    gate.arrived.wait()
    gate.open()
    done = over(scripted, id)
    assert done.status == "completed"
    events = list(scripted.responses.retrieve(id, stream=True))
    assert said(events) == done.output_text
    assert len(upstream.visits(prompt)) == 1


def test_who_follows_gets_what_is_there_and_what_comes(scripted: openai.OpenAI, upstream: ScriptedUpstream) -> None:
    prompt, gate = gated(upstream, after=6)
    id = begun(scripted, prompt, stream=True)
    gate.arrived.wait()
    texts: list[str] = []
    seen, gate_opened = threading.Barrier(3), threading.Event()

    def follow() -> None:
        events = []
        for event in scripted.responses.retrieve(id, stream=True):
            events.append(event)
            if said(events).endswith("zero") and not gate_opened.is_set():
                seen.wait(60)
        texts.append(said(events))

    followers = [threading.Thread(target=follow) for _ in range(2)]
    for follower in followers:
        follower.start()
    seen.wait(60)
    gate_opened.set()
    gate.open()
    for follower in followers:
        follower.join(60)
    assert texts == [over(scripted, id).output_text] * 2


@pytest.mark.parametrize(
    ("fault", "stream"),
    [
        ("status=500", False),
        ("status=500", True),
        ("status=429 retry=0", False),
        ("short", False),
        ("cut after=4", True),
    ],
)
def test_what_may_pass_is_tried_again(upstream: ScriptedUpstream, proxy: MakeProxy, fault: str, stream: bool) -> None:
    with client_of(proxy(upstream.url)) as client:
        prompt = f"{marker()} [script:{fault} times=2]"
        id = begun(client, prompt, stream)
        done = over(client, id)
        assert done.status == "completed"
        assert len(upstream.visits(prompt)) == 3
        if stream:
            events: list[Any] = list(client.responses.retrieve(id, stream=True))
            assert numbers(events) == list(range(len(events)))
            assert said(events) == done.output_text
            assert events[-1].response == done


@pytest.mark.parametrize(
    ("fault", "stream", "code"),
    [
        ("status=500", False, "server_error"),
        ("status=400", False, "invalid_prompt"),
        ("status=400", True, "invalid_prompt"),
        ("cut after=5", True, "server_error"),
    ],
)
def test_what_does_not_pass_fails_with_its_reason(
    upstream: ScriptedUpstream, proxy: MakeProxy, fault: str, stream: bool, code: str
) -> None:
    with client_of(proxy(upstream.url, job_max_attempts=2)) as client:
        id = begun(client, f"{marker()} [script:{fault}]", stream)
        failed = over(client, id)
        assert (failed.status, failed.output) == ("failed", [])
        assert failed.error is not None
        assert failed.error.code == code
        assert failed.error.message
        if stream:
            events: list[Any] = list(client.responses.retrieve(id, stream=True))
            assert numbers(events) == list(range(len(events)))
            assert events[-1].type == "response.failed"
            assert events[-1].response == failed
        with pytest.raises(openai.BadRequestError, match="is failed") as caught:
            client.responses.create(model="m", input="hi", previous_response_id=id)
        assert caught.value.code == "previous_response_not_completed"


def test_what_is_not_there_yet_cannot_be_gone_on_with(scripted: openai.OpenAI, upstream: ScriptedUpstream) -> None:
    prompt, gate = gated(upstream)
    id = begun(scripted, prompt, stream=False)
    gate.arrived.wait()
    with pytest.raises(openai.BadRequestError, match="only one that is completed") as caught:
        scripted.responses.create(model="m", input="hi", previous_response_id=id)
    assert caught.value.code == "previous_response_not_completed"
    gate.open()
    over(scripted, id)
    word = marker()
    second = scripted.responses.create(model="m", input=word, previous_response_id=id, background=True)
    assert over(scripted, second.id).previous_response_id == id
    assert len(upstream.visits(word)[0].json["input"]) == 3


def test_a_hit_takes_no_upstream_call(scripted: openai.OpenAI, upstream: ScriptedUpstream) -> None:
    word = marker()
    made = scripted.responses.create(model="m", input=word)
    for stream in (False, True):
        done = over(scripted, begun(scripted, word, stream))
        assert done.id != made.id
        assert done.output_text == made.output_text
        assert done.completed_at is not None
        assert done.completed_at >= int(done.created_at)
    assert len(upstream.visits(word)) == 1


def test_one_that_did_not_stream_cannot_be_followed(scripted: openai.OpenAI) -> None:
    id = scripted.responses.create(model="m", input=marker(), background=True).id
    with pytest.raises(openai.BadRequestError, match="not created with stream=true") as caught:
        scripted.responses.retrieve(id, stream=True)
    assert caught.value.param == "stream"


def test_sent_twice_with_a_key_it_is_made_once(scripted: openai.OpenAI, upstream: ScriptedUpstream) -> None:
    word, headers = marker(), {"Idempotency-Key": marker()}
    ids = {
        scripted.responses.create(model="m", input=word, background=True, extra_headers=headers).id for _ in range(3)
    }
    assert len(ids) == 1
    over(scripted, ids.pop())
    assert len(upstream.visits(word)) == 1


@pytest.mark.parametrize("body", [{"model": 7}, {"stream": 1}, {"input": 7}, {"stream_options": "x"}])
def test_what_no_model_server_could_be_sent_is_refused_at_once(scripted: openai.OpenAI, body: dict[str, Any]) -> None:
    with pytest.raises(openai.BadRequestError):
        scripted.responses.create(**{"model": "m", "input": marker(), "background": True, **body})


@pytest.mark.parametrize("end", [Proxy.kill, Proxy.stop])
def test_ended_in_the_middle_the_program_makes_it_all_the_same(
    upstream: ScriptedUpstream, proxy: MakeProxy, end: Callable[[Proxy], None]
) -> None:
    own = proxy(upstream.url, shutdown_seconds=0.5, disconnect_grace=0.1)
    prompt, gate = gated(upstream, after=6)
    events: list[Any] = []
    with client_of(own) as client, suppress(openai.APIError):
        for event in client.responses.create(model="m", input=prompt, background=True, stream=True):
            events.append(event)
            if said(events):
                end(own)
    id, known = events[0].response.id, events[-1].sequence_number
    own.start()
    gate.open()
    with client_of(own) as client:
        rest: list[Any] = list(client.responses.retrieve(id, stream=True, starting_after=known))
        done = over(client, id)
        assert numbers(rest) == list(range(known + 1, known + 1 + len(rest)))
        assert rest[-1].type == "response.completed"
        assert rest[-1].response == done
        assert said(client.responses.retrieve(id, stream=True)) == done.output_text
    assert len(upstream.visits(prompt)) == 2


def test_run_again_its_end_is_told_whatever_was_known(upstream: ScriptedUpstream, proxy: MakeProxy) -> None:
    own = proxy(upstream.url, job_max_attempts=2)
    with client_of(own) as client:
        # the first try gets further than the second one ever does
        id = begun(client, f"{marker()} [script:cut words=40 after=30 times=1]", stream=True)
        done = over(client, id)
        assert done.status == "completed"
        (last,) = client.responses.retrieve(id, stream=True, starting_after=1000)
        assert last.type == "response.completed"


def test_two_processes_share_it(upstream: ScriptedUpstream, proxy: MakeProxy) -> None:
    worker = proxy(upstream.url, disconnect_grace=0.1)
    prompt, gate = gated(upstream, after=5)
    with (
        Proxy(upstream.url, database=worker.database, task_queue_workers=0) as face,
        client_of(face) as here,
        client_of(worker) as there,
    ):
        stream = here.responses.create(model="m", input=prompt, background=True, stream=True)
        events: list[Any] = [next(iter(stream))]
        gate.arrived.wait()
        gate.open()
        events += stream
        id = events[0].response.id
        assert events[-1].response == over(there, id) == here.responses.retrieve(id)
        assert said(events) == events[-1].response.output_text
        prompt, gate = gated(upstream)
        second = here.responses.create(model="m", input=prompt, background=True)
        gate.arrived.wait()
        here.responses.cancel(second.id)
        upstream.visits(prompt)[0].left.wait(60)
