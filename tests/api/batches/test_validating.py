"""What is found in the input file after a batch was accepted: it fails, and nothing of it runs."""

import openai
import pytest

from tests.api.batches.asking import created, ended, plain
from tests.api.batches.made import CHAT, Json, request
from tests.scripted import marker
from tests.scripted_upstream import ScriptedUpstream
from tests.server import Proxy

Error = tuple[str, int | None, str | None]


def found(client: openai.OpenAI, *lines: Json | str) -> list[Error]:
    """The errors for which a batch of these lines failed."""
    batch = ended(client, created(client, *lines).id)
    assert batch.status == "failed"
    assert batch.failed_at is not None
    assert (batch.output_file_id, batch.error_file_id, batch.in_progress_at) == (None, None, None)
    assert batch.errors is not None
    assert batch.errors.object == "list"
    assert batch.errors.data is not None
    assert batch.request_counts is not None
    assert batch.request_counts.to_dict() == {"total": 0, "completed": 0, "failed": 0}
    assert all(error.message for error in batch.errors.data)
    return [(str(error.code), error.line, error.param) for error in batch.errors.data]


def changed(**members: object) -> Json:
    return {**request("b"), **members}


def without(name: str) -> Json:
    return {key: value for key, value in request("b").items() if key != name}


def body(**members: object) -> Json:
    line = request("b")
    given = {**line["body"], **members}
    line["body"] = {name: value for name, value in given.items() if value is not None}
    return line


@pytest.mark.parametrize(
    ("line", "code", "param"),
    [
        ("{not json", "invalid_json_line", None),
        (without("custom_id"), "missing_required_parameter", "custom_id"),
        (without("method"), "missing_required_parameter", "method"),
        (without("url"), "missing_required_parameter", "url"),
        (without("body"), "missing_required_parameter", "body"),
        (changed(url="/v1/embeddings"), "invalid_url", "url"),
        (changed(method="GET"), "invalid_method", "method"),
        (body(model=None), "invalid_request", "body.model"),
        (body(messages=None), "invalid_request", "body.messages"),
        (body(stream=True), "streaming_unsupported", "body.stream"),
        (changed(custom_id="a"), "duplicate_custom_id", "custom_id"),
        (body(model="another"), "model_mismatch", "body.model"),
    ],
)
def test_a_bad_line_is_named_by_its_number(client: openai.OpenAI, line: Json | str, code: str, param: str) -> None:
    assert found(client, request("a"), line, request("c")) == [(code, 2, param)]


def test_one_bad_line_and_nothing_runs(client: openai.OpenAI, upstream: ScriptedUpstream) -> None:
    word = marker()
    good = [request(f"r{number}", word) for number in range(5)]
    assert found(client, *good, "{", *good[:2]) == [
        ("invalid_json_line", 6, None),
        ("duplicate_custom_id", 7, "custom_id"),
        ("duplicate_custom_id", 8, "custom_id"),
    ]
    assert upstream.visits(word) == []


def test_an_unknown_model(client: openai.OpenAI) -> None:
    assert found(client, "", request("a", model="gpt-9")) == [("model_not_found", 2, "body.model")]


def test_no_requests(client: openai.OpenAI) -> None:
    file = client.files.create(file=("in.jsonl", b"\n \n"), purpose="batch")
    batch = client.batches.create(input_file_id=file.id, endpoint=CHAT, completion_window="24h")
    failed = ended(client, batch.id)
    assert failed.errors is not None
    assert failed.errors.data is not None
    assert [(error.code, error.line, error.param) for error in failed.errors.data] == [("empty_file", None, None)]


def test_a_file_that_is_not_there(client: openai.OpenAI) -> None:
    for id in ("file-none", "file-" + "0" * 32, "nul\0", "../../etc/passwd", ""):
        batch = client.batches.create(input_file_id=id, endpoint=CHAT, completion_window="24h")
        assert batch.status == "validating"
        failed = ended(client, batch.id)
        assert failed.status == "failed"
        assert failed.errors is not None
        assert failed.errors.data is not None
        (error,) = failed.errors.data
        assert (error.code, error.line, error.param) == ("invalid_request", None, "file_id")
        assert error.message is not None
        assert error.message.startswith("Cannot find file")


def test_a_file_that_was_deleted_before(client: openai.OpenAI) -> None:
    good = created(client, request("a"))
    ended(client, good.id)
    client.files.delete(good.input_file_id)
    batch = client.batches.create(input_file_id=good.input_file_id, endpoint=CHAT, completion_window="24h")
    assert [error.code for error in ended(client, batch.id).errors.data] == ["invalid_request"]  # type: ignore[union-attr]  # it failed


def test_a_file_that_is_deleted_right_after(client: openai.OpenAI) -> None:
    batch = created(client, request("a"))
    assert client.files.delete(batch.input_file_id).deleted
    assert ended(client, batch.id).status == "completed"


def test_blank_lines_are_none_and_a_missing_end_does_no_harm(client: openai.OpenAI) -> None:
    batch = ended(client, created(client, "", request("a"), "  ", request("b"), "").id)
    assert batch.status == "completed"
    assert batch.request_counts is not None
    assert batch.request_counts.to_dict() == {"total": 2, "completed": 2, "failed": 0}


@pytest.mark.parametrize(
    ("requests", "errors"),
    [(49_999, [("invalid_json_line", 50_000, None)]), (50_000, [("too_many_tasks", None, None)])],
)
def test_fifty_thousand_lines_are_read_and_others_are_answered(
    client: openai.OpenAI, front: Proxy, requests: int, errors: list[Error]
) -> None:
    good = (request(f"r{index}", str(index)) for index in range(requests))
    batch = created(client, *good, "{")
    with plain(front) as http:
        while (seen := http.get(f"/v1/batches/{batch.id}").json())["status"] == "validating":
            assert http.get("/health").status_code == 200
    assert [(error["code"], error["line"], error["param"]) for error in seen["errors"]["data"]] == errors
