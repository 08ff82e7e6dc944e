"""``POST /v1/batches``: what it takes and what it refuses."""

import json
from typing import Any

import httpx
import openai
import pytest

from tests.api.batches.asking import client_of, created, ended, plain
from tests.api.batches.made import CHAT, Json, jsonl, request
from tests.conftest import MakeProxy
from tests.scripted_upstream import ScriptedUpstream
from tests.server import Proxy

GOOD: Json = {"input_file_id": "file-none", "endpoint": CHAT, "completion_window": "24h"}


def refused(front: Proxy, body: Json) -> Json:
    with plain(front) as http:
        answer = http.post("/v1/batches", json=body)
    assert answer.status_code == 400
    error: Json = answer.json()["error"]
    assert error["type"] == "invalid_request_error"
    return error


@pytest.mark.parametrize("name", ["input_file_id", "endpoint", "completion_window"])
@pytest.mark.parametrize("how", ["absent", "null"])
def test_a_parameter_that_is_missing(front: Proxy, name: str, how: str) -> None:
    body = {**GOOD, name: None}
    if how == "absent":
        del body[name]
    error = refused(front, body)
    assert error["message"] == f"Missing required parameter: '{name}'."
    assert (error["code"], error["param"]) == ("missing_required_parameter", name)


@pytest.mark.parametrize(
    ("body", "code", "param", "message"),
    [
        (
            {"endpoint": "/v1/x"},
            "invalid_value",
            "endpoint",
            "Invalid value: '/v1/x'. Supported values are: '/v1/responses', '/v1/chat/completions', "
            "'/v1/embeddings', and '/v1/completions'.",
        ),
        (
            {"completion_window": "1h"},
            "invalid_value",
            "completion_window",
            "Invalid value: '1h'. Supported values are: '24h'.",
        ),
        (
            {"metadata": {"tags": ["a"]}},
            "invalid_type",
            "metadata.tags",
            "Invalid type for 'metadata.tags': expected a string, but got an array instead.",
        ),
        (
            {"metadata": {"n": 1.5}},
            "invalid_type",
            "metadata.n",
            "Invalid type for 'metadata.n': expected a string, but got a decimal instead.",
        ),
        (
            {"metadata": "a"},
            "invalid_type",
            "metadata",
            "Invalid type for 'metadata': expected an object, but got a string instead.",
        ),
        (
            {"input_file_id": 7},
            "invalid_type",
            "input_file_id",
            "Invalid type for 'input_file_id': expected a string, but got an integer instead.",
        ),
    ],
)
def test_in_the_words_of_openai(front: Proxy, body: Json, code: str, param: str, message: str) -> None:
    error = refused(front, GOOD | body)
    assert (error["code"], error["param"], error["message"]) == (code, param, message)


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"input_file_id": "x" * 201}, "input_file_id"),
        ({"metadata": {str(number): "" for number in range(17)}}, "metadata"),
        ({"metadata": {"k" * 65: ""}}, "metadata"),
        ({"metadata": {"k": "v" * 513}}, "metadata.k"),
        ({"metadata": {"k": None}}, "metadata.k"),
        ({"output_expires_after": 7}, "output_expires_after"),
        ({"output_expires_after": {"seconds": 3600}}, "output_expires_after.anchor"),
        ({"output_expires_after": {"anchor": "now", "seconds": 3600}}, "output_expires_after.anchor"),
        ({"output_expires_after": {"anchor": "created_at"}}, "output_expires_after.seconds"),
        ({"output_expires_after": {"anchor": "created_at", "seconds": 3599}}, "output_expires_after.seconds"),
        ({"output_expires_after": {"anchor": "created_at", "seconds": 2592001}}, "output_expires_after.seconds"),
        ({"output_expires_after": {"anchor": "created_at", "seconds": True}}, "output_expires_after.seconds"),
    ],
)
def test_what_is_out_of_bounds(front: Proxy, body: Json, param: str) -> None:
    assert refused(front, GOOD | body)["param"] == param


def test_the_largest_metadata_is_kept(client: openai.OpenAI) -> None:
    metadata = {f"{number:064}": "é" * 512 for number in range(16)}
    batch = created(client, request("a"), metadata=metadata)
    assert batch.metadata == metadata
    assert client.batches.retrieve(batch.id).metadata == metadata


@pytest.mark.parametrize("body", [b"", b"{", b"[]"])
def test_a_body_that_is_no_json_object(front: Proxy, body: bytes) -> None:
    with plain(front) as http:
        answer = http.post("/v1/batches", content=body, headers={"content-type": "application/json"})
    assert answer.status_code == 400


def test_a_body_that_is_too_large(front: Proxy) -> None:
    with plain(front) as http:
        answer = http.post("/v1/batches", json=GOOD | {"x": "x" * 300_000})
    assert answer.status_code == 413


def test_what_is_accepted_looks_like_openais(proxy: MakeProxy, upstream: ScriptedUpstream) -> None:
    quiet = proxy(upstream.url, task_queue_workers=0)
    with plain(quiet) as http:
        answer = http.post("/v1/batches", json=GOOD)
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "application/json"
    batch = answer.json()
    created_at = batch["created_at"]
    assert batch["id"].startswith("batch_")
    assert batch == {
        "id": batch["id"],
        "object": "batch",
        "endpoint": CHAT,
        "model": None,
        "errors": None,
        "input_file_id": "file-none",
        "completion_window": "24h",
        "status": "validating",
        "output_file_id": None,
        "error_file_id": None,
        "created_at": created_at,
        "in_progress_at": None,
        "expires_at": created_at + 86_400,
        "finalizing_at": None,
        "completed_at": None,
        "failed_at": None,
        "expired_at": None,
        "cancelling_at": None,
        "cancelled_at": None,
        "request_counts": {"total": 0, "completed": 0, "failed": 0},
        "usage": None,
        "metadata": None,
        "llmproxy": {"hits": 0},
    }


def test_a_file_of_another_purpose(client: openai.OpenAI) -> None:
    file = client.files.create(file=("in.jsonl", jsonl(request("a"))), purpose="user_data")
    with pytest.raises(openai.BadRequestError) as caught:
        client.batches.create(input_file_id=file.id, endpoint=CHAT, completion_window="24h")
    assert (caught.value.code, caught.value.param) == ("invalid_purpose", "input_file_id")


def test_the_same_idempotency_key_is_the_same_batch(client: openai.OpenAI) -> None:
    file = client.files.create(file=("in.jsonl", jsonl(request("a"))), purpose="batch")

    def create(key: str) -> str:
        return client.batches.create(
            input_file_id=file.id,
            endpoint=CHAT,
            completion_window="24h",
            extra_headers={"Idempotency-Key": key},
        ).id

    first = create("one")
    assert create("one") == first
    assert create("two") != first
    assert ended(client, first).request_counts.completed == 1  # type: ignore[union-attr]  # it has them
    assert create("one") == first


@pytest.mark.parametrize("key", ["", "a b", "x" * 256])
def test_an_idempotency_key_that_is_none(front: Proxy, key: str) -> None:
    with plain(front) as http:
        answer = http.post("/v1/batches", json=GOOD, headers={"Idempotency-Key": key})
    assert answer.json()["error"]["param"] == "Idempotency-Key"


def test_a_malformed_directive_is_refused_before_anything_is_kept(front: Proxy) -> None:
    with plain(front) as http:
        before = http.get("/v1/batches", params={"limit": 1}).json()["first_id"]
        answer = http.post("/v1/batches", json=GOOD, headers={"X-LLMProxy-TTL": "soon"})
        assert answer.status_code == 400
        assert http.get("/v1/batches", params={"limit": 1}).json()["first_id"] == before


@pytest.mark.parametrize("prefix", ["", "/v1"])
def test_with_and_without_v1(front: Proxy, client: openai.OpenAI, prefix: str) -> None:
    file = client.files.create(file=("in.jsonl", jsonl(request("a"))), purpose="batch")
    with plain(front) as http:
        batch = http.post(f"{prefix}/batches", json=GOOD | {"input_file_id": file.id}).json()
        assert http.get(f"{prefix}/batches/{batch['id']}").json()["id"] == batch["id"]
        assert http.get(f"{prefix}/batches").json()["data"][0]["id"] == batch["id"]
        assert ended(client, batch["id"]).status == "completed"
        assert http.post(f"{prefix}/batches/{batch['id']}/cancel").status_code == 409


def test_batches_belong_to_the_callers_scope(proxy: MakeProxy, upstream: ScriptedUpstream) -> None:
    guarded = proxy(upstream.url, api_keys="ann:secret-a,bob:secret-b")
    with client_of(guarded, "secret-a") as ann, client_of(guarded, "secret-b") as bob:
        mine = ended(ann, created(ann, request("a")).id)
        assert [batch.id for batch in ann.batches.list()] == [mine.id]
        assert list(bob.batches.list()) == []
        for touch in (bob.batches.retrieve, bob.batches.cancel):
            with pytest.raises(openai.NotFoundError):
                touch(mine.id)
        assert mine.output_file_id
        with pytest.raises(openai.NotFoundError):
            bob.files.content(mine.output_file_id)
        # another one's file is no file
        theirs = ended(
            bob, bob.batches.create(input_file_id=mine.input_file_id, endpoint=CHAT, completion_window="24h").id
        )
        assert _codes(theirs) == ["invalid_request"]


def _codes(batch: Any) -> list[str]:
    return [error.code for error in batch.errors.data]


def test_other_methods_are_refused_in_the_envelope(front: Proxy) -> None:
    with plain(front) as http:
        answer: httpx.Response = http.delete("/v1/batches")
    assert answer.status_code == 405
    assert json.loads(answer.content)["error"].keys() == {"message", "type", "param", "code"}
