"""Batches from their beginning to their end, through the official client."""

import openai
import pytest

from tests.api.batches.asking import client_of, created, ended, errors, output, plain, until
from tests.api.batches.made import BODIES, request
from tests.conftest import MakeProxy
from tests.scripted import marker
from tests.scripted_upstream import ScriptedUpstream
from tests.server import Proxy


def test_a_batch_comes_to_its_end(client: openai.OpenAI, upstream: ScriptedUpstream) -> None:
    word = marker()
    lines = [request(f"r{number}", f"{number} {word}") for number in range(5)]
    batch = ended(client, created(client, *lines, metadata={"kind": "nightly"}).id)
    assert (batch.status, batch.model, batch.errors, batch.error_file_id) == ("completed", "scripted", None, None)
    assert batch.metadata == {"kind": "nightly"}
    assert batch.request_counts is not None
    assert batch.request_counts.to_dict() == {"total": 5, "completed": 5, "failed": 0}
    assert batch.created_at <= batch.in_progress_at <= batch.finalizing_at <= batch.completed_at  # type: ignore[operator]  # all are set
    assert (batch.failed_at, batch.expired_at, batch.cancelling_at, batch.cancelled_at) == (None,) * 4
    found = output(client, batch)
    assert list(found) == [line["custom_id"] for line in lines]
    visits = {visit.json["messages"][0]["content"]: f"answer-{visit.number}" for visit in upstream.visits(word)}
    for line in lines:
        answer = found[line["custom_id"]]
        assert (answer["error"], answer["response"]["status_code"]) == (None, 200)
        said = answer["response"]["body"]["choices"][0]["message"]["content"]
        assert said.split()[0] == visits[line["body"]["messages"][0]["content"]]
    assert len(visits) == 5


def test_usage_is_summed(client: openai.OpenAI) -> None:
    batch = ended(client, created(client, *(request(f"r{number}", marker()) for number in range(3))).id)
    assert batch.usage is not None
    assert batch.usage.to_dict() == {
        "input_tokens": 21,
        "input_tokens_details": {"cached_tokens": 0},
        "output_tokens": 18,
        "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": 39,
    }


@pytest.mark.parametrize("endpoint", BODIES)
def test_every_endpoint(client: openai.OpenAI, endpoint: str) -> None:
    line = {
        "custom_id": "a",
        "method": "POST",
        "url": endpoint,
        "body": {"model": "scripted", **BODIES[endpoint], "user": marker()},
    }
    batch = ended(client, created(client, line, endpoint=endpoint).id)
    assert (batch.status, batch.endpoint) == ("completed", endpoint)
    assert output(client, batch)["a"]["response"]["body"]["object"]
    assert batch.usage is not None
    assert batch.usage.input_tokens > 0


def test_errors_go_to_a_file_of_their_own(client: openai.OpenAI) -> None:
    lines = [
        request("good", marker()),
        request("refused", f"{marker()} [script:status=400]"),
        request("too long", f"{marker()} [script:status=400 shape=llamacpp-context]"),
    ]
    batch = ended(client, created(client, *lines).id)
    assert batch.status == "completed"
    assert batch.request_counts is not None
    assert batch.request_counts.to_dict() == {"total": 3, "completed": 1, "failed": 2}
    assert list(output(client, batch)) == ["good"]
    told = errors(client, batch)
    assert list(told) == ["refused", "too long"]
    for line in told.values():
        assert line["error"] is None
        assert line["response"]["status_code"] == 400
        assert line["response"]["request_id"]
        assert line["response"]["body"]["error"].keys() >= {"message", "type", "param", "code"}
    assert told["too long"]["response"]["body"]["error"]["code"] == "context_length_exceeded"


def test_a_batch_of_which_every_line_fails_is_completed(client: openai.OpenAI) -> None:
    batch = ended(client, created(client, request("a", f"{marker()} [script:status=400]")).id)
    assert (batch.status, batch.output_file_id, batch.usage) == ("completed", None, None)
    assert list(errors(client, batch)) == ["a"]


def test_an_answer_that_never_came_has_no_response(proxy: MakeProxy, upstream: ScriptedUpstream) -> None:
    impatient = proxy(upstream.url, job_max_attempts=1, first_byte_timeout=0.3)
    with client_of(impatient) as client:
        lines = [request("slow", f"{marker()} [script:silent]"), request("broken", f"{marker()} [script:drop]")]
        told = errors(client, ended(client, created(client, *lines).id))
    assert {name: line["response"] for name, line in told.items()} == {"slow": None, "broken": None}
    assert told["slow"]["error"]["code"] == "request_timeout"
    assert told["broken"]["error"]["code"].startswith("upstream_")
    assert told["broken"]["error"]["message"]


def test_output_files_are_files_like_others(client: openai.OpenAI) -> None:
    batch = ended(client, created(client, request("a", marker()), request("b", f"{marker()} [script:status=400]")).id)
    for id, what in ((batch.output_file_id, "output"), (batch.error_file_id, "error")):
        assert id is not None
        file = client.files.retrieve(id)
        assert (file.purpose, file.filename) == ("batch_output", f"{batch.id}_{what}.jsonl")
        assert file.bytes == len(client.files.content(id).content)
        assert file.expires_at == file.created_at + 30 * 86_400
    assert batch.output_file_id in [file.id for file in client.files.list(purpose="batch_output")]
    assert client.files.delete(str(batch.output_file_id)).deleted
    assert client.batches.retrieve(batch.id).status == "completed"


def test_output_files_are_kept_for_as_long_as_was_said(client: openai.OpenAI) -> None:
    batch = created(client, request("a", marker()), output_expires_after={"anchor": "created_at", "seconds": 3600})
    file = client.files.retrieve(str(ended(client, batch.id).output_file_id))
    assert file.expires_at == file.created_at + 3600


def test_lines_are_cached_like_every_request(client: openai.OpenAI, upstream: ScriptedUpstream) -> None:
    word = marker()
    first = ended(client, created(client, request("a", word)).id)
    direct = client.chat.completions.with_raw_response.create(
        model="scripted", messages=[{"role": "user", "content": word}]
    )
    assert direct.headers["x-cache"] == "HIT"
    second = ended(client, created(client, request("b", word)).id)
    bodies = [output(client, batch)[id]["response"]["body"] for batch, id in ((first, "a"), (second, "b"))]
    assert bodies[0] == bodies[1]
    assert len(upstream.visits(word)) == 1


def test_what_is_said_to_the_cache_holds_for_every_line(client: openai.OpenAI, upstream: ScriptedUpstream) -> None:
    word = marker()
    for _ in range(2):
        ended(client, created(client, request("a", word), extra_headers={"Cache-Control": "no-cache"}).id)
    assert len(upstream.visits(word)) == 2


def test_batches_are_listed_newest_first_page_by_page(proxy: MakeProxy, upstream: ScriptedUpstream) -> None:
    own = proxy(upstream.url)
    with client_of(own) as client, plain(own) as http:
        assert http.get("/v1/batches").json() == {
            "object": "list",
            "data": [],
            "first_id": None,
            "last_id": None,
            "has_more": False,
        }
        ids = [created(client, request("a")).id for _ in range(5)][::-1]
        page = http.get("/v1/batches", params={"limit": 2}).json()
        assert [batch["id"] for batch in page["data"]] == ids[:2]
        assert (page["first_id"], page["last_id"], page["has_more"]) == (ids[0], ids[1], True)
        assert [batch.id for batch in client.batches.list(limit=2)] == ids
        assert list(client.batches.list(after=ids[-1])) == []
        for limit in ("0", "101", "x", "-1"):
            assert http.get("/v1/batches", params={"limit": limit}).json()["error"]["param"] == "limit"
        assert http.get("/v1/batches", params={"after": "nul\0"}).json()["error"]["param"] == "after"


@pytest.mark.parametrize("id", ["batch_none", "batch_" + "0" * 32, "task_" + "0" * 32, "nul%00", "%2e%2e"])
def test_a_batch_that_is_not_there(front: Proxy, id: str) -> None:
    with plain(front) as http:
        for answer in (http.get(f"/v1/batches/{id}"), http.post(f"/v1/batches/{id}/cancel")):
            assert answer.status_code == 404
            assert "No batch found" in answer.json()["error"]["message"]


def test_counts_move_while_lines_run(proxy: MakeProxy, upstream: ScriptedUpstream) -> None:
    gate, word = upstream.gate(), marker()
    with client_of(proxy(upstream.url)) as client:
        lines = [request("quick", word), request("slow", f"{word} [script:gate={gate.name}]")]
        batch = created(client, *lines)
        running = until(client, batch.id, lambda seen: seen.request_counts.completed == 1)  # type: ignore[union-attr]  # it has them
        assert (running.status, running.model, running.output_file_id) == ("in_progress", "scripted", None)
        assert running.request_counts is not None
        assert running.request_counts.to_dict() == {"total": 2, "completed": 1, "failed": 0}
        gate.open()
        assert ended(client, batch.id).status == "completed"


def test_cancelling_keeps_what_is_done(proxy: MakeProxy, upstream: ScriptedUpstream) -> None:
    gate, word = upstream.gate(), marker()
    with client_of(proxy(upstream.url, task_queue_workers=2)) as client:
        lines = [request("done", word), *(request(f"r{n}", f"{n} {word} [script:gate={gate.name}]") for n in range(5))]
        batch = created(client, *lines)
        until(client, batch.id, lambda seen: seen.request_counts.completed == 1)  # type: ignore[union-attr]  # it has them
        in_flight = upstream.journal.wait(f"0 {word}")
        told = client.batches.cancel(batch.id)
        assert told.status in ("cancelling", "cancelled")
        over = ended(client, batch.id)
        assert (over.status, over.completed_at) == ("cancelled", None)
        assert over.cancelling_at is not None
        assert over.cancelled_at is not None
        assert list(output(client, over)) == ["done"]
        missing = errors(client, over)
        assert list(missing) == [f"r{number}" for number in range(5)]
        assert {line["error"]["code"] for line in missing.values()} == {"batch_cancelled"}
        assert {line["response"] for line in missing.values()} == {None}
        # the model server is not kept busy for nobody
        in_flight.left.wait()
        assert client.batches.cancel(batch.id).status == "cancelled"


def test_cancelling_what_has_not_begun(proxy: MakeProxy, upstream: ScriptedUpstream) -> None:
    with client_of(proxy(upstream.url, task_queue_workers=0)) as client:
        batch = client.batches.cancel(created(client, request("a")).id)
        assert (batch.status, batch.output_file_id, batch.error_file_id) == ("cancelled", None, None)
        assert batch.cancelling_at is not None
        assert batch.cancelled_at is not None


def test_what_is_over_cannot_be_cancelled_and_is_not_tried_again(front: Proxy, client: openai.OpenAI) -> None:
    good = ended(client, created(client, request("a")).id)
    bad = ended(client, created(client, request("a"), "{").id)
    with plain(front) as http:
        for batch in (good, bad):
            answer = http.post(f"/v1/batches/{batch.id}/cancel", headers={"content-type": "application/json"})
            assert answer.status_code == 409
            assert answer.headers["x-should-retry"] == "false"
            assert answer.json()["error"]["message"] == f"Cannot cancel a batch with status '{batch.status}'."


def test_a_restart_loses_nothing_and_repeats_nothing(proxy: MakeProxy, upstream: ScriptedUpstream) -> None:
    gate, word = upstream.gate(), marker()
    own = proxy(upstream.url, task_queue_workers=2)
    lines = [
        *(request(f"done{number}", f"done{number} {word} [script:]") for number in range(10)),
        *(request(f"r{number}", f"r{number} {word} [script:gate={gate.name}]") for number in range(10)),
    ]
    with client_of(own) as client:
        batch = created(client, *lines)
        until(client, batch.id, lambda seen: seen.request_counts.completed == 10)  # type: ignore[union-attr]  # it has them
        upstream.journal.wait(word, 11)
    own.kill()
    gate.open()
    own.start()
    with client_of(own) as client:
        over = ended(client, batch.id)
        assert over.status == "completed"
        assert over.request_counts is not None
        assert over.request_counts.to_dict() == {"total": 20, "completed": 20, "failed": 0}
        assert list(output(client, over)) == [line["custom_id"] for line in lines]
    repeated = [visit for visit in upstream.visits(word) if b"done" in visit.body]
    assert len(repeated) == 10


def test_files_and_batches_outlive_a_restart(proxy: MakeProxy, upstream: ScriptedUpstream) -> None:
    own = proxy(upstream.url)
    with client_of(own) as client:
        before = ended(client, created(client, request("a", marker())).id)
        text = output(client, before)
    own.stop()
    own.start()
    with client_of(own) as client:
        assert client.batches.retrieve(before.id) == before
        assert output(client, before) == text
