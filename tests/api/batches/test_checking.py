"""All lines of an input file together."""

import json

import pytest

from llmproxy.api import batch_input as module
from llmproxy.api.batch_input import InputCheck
from tests.api.batches.made import CHAT, Json, request


def checked(*lines: Json | str, endpoint: str = CHAT) -> InputCheck:
    checking = InputCheck(endpoint, 10_000)
    checking.take(1, [line.encode() if isinstance(line, str) else json.dumps(line).encode() for line in lines])
    return checking


def test_a_good_file() -> None:
    checking = checked(request("a"), "", request("b"), "  ")
    assert checking.errors() == []
    assert (checking.requests, checking.model, checking.model_line) == (2, "scripted", 1)


def test_one_error_for_each_bad_line_with_its_number() -> None:
    checking = InputCheck(CHAT, 10_000)
    checking.take(1, [b"{", json.dumps(request("a")).encode(), b""])
    checking.take(4, [b"{}", json.dumps(request("b") | {"url": "/v1/x"}).encode()])
    found = [(entry["line"], entry["code"], entry["param"]) for entry in checking.errors()]
    assert found == [
        (1, "invalid_json_line", None),
        (4, "missing_required_parameter", "custom_id"),
        (5, "invalid_url", "url"),
    ]


def test_a_custom_id_twice_even_far_apart() -> None:
    checking = InputCheck(CHAT, 10_000)
    checking.take(1, [json.dumps(request("a")).encode()])
    checking.take(2, [json.dumps(request("A")).encode(), json.dumps(request("a")).encode()])
    (error,) = checking.errors()
    assert (error["line"], error["code"], error["param"]) == (3, "duplicate_custom_id", "custom_id")


def test_two_models() -> None:
    (error,) = checked(request("a", model="one"), request("b", model="two"), request("c", model="one")).errors()
    assert (error["line"], error["code"], error["param"]) == (2, "model_mismatch", "body.model")
    assert "'one'" in error["message"]


@pytest.mark.parametrize("lines", [[], [""], ["", "   ", "\t"]])
def test_an_empty_file(lines: list[str]) -> None:
    (error,) = checked(*lines).errors()
    assert (error["line"], error["code"], error["param"]) == (None, "empty_file", None)


def test_too_many_requests_end_the_reading(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOST_REQUESTS", 3)
    good = checked("{", *(request(str(number)) for number in range(2)))
    assert not good.over
    assert [entry["code"] for entry in good.errors()] == ["invalid_json_line"]
    checking = checked("{", *(request(str(number)) for number in range(3)), "{")
    assert checking.over
    assert [entry["code"] for entry in checking.errors()] == ["too_many_tasks"]


def test_too_many_bytes_end_the_reading(monkeypatch: pytest.MonkeyPatch) -> None:
    line = json.dumps(request("a"))
    monkeypatch.setattr(module, "MOST_BYTES", len(line) + 1)
    assert checked(line).errors() == []
    checking = checked(line, "")
    assert checking.over
    assert [entry["code"] for entry in checking.errors()] == ["file_too_large"]


def test_too_many_inputs_end_the_reading(monkeypatch: pytest.MonkeyPatch) -> None:
    def embedding(custom_id: str, count: int) -> Json:
        body = {"model": "m", "input": ["x"] * count}
        return {"custom_id": custom_id, "method": "POST", "url": "/v1/embeddings", "body": body}

    monkeypatch.setattr(module, "MOST_INPUTS", 5)
    assert checked(embedding("a", 2), embedding("b", 3), endpoint="/v1/embeddings").errors() == []
    (error,) = checked(embedding("a", 2), embedding("b", 4), endpoint="/v1/embeddings").errors()
    assert (error["line"], error["code"], error["param"]) == (2, "too_many_inputs", "body.input")


def test_errors_are_listed_up_to_a_thousand_and_the_others_counted() -> None:
    assert len(checked(*["{"] * 1000).errors()) == 1000
    errors = checked(*["{"] * 1005).errors()
    assert len(errors) == 1001
    assert errors[-1]["code"] == "too_many_errors"
    assert errors[-1]["message"].startswith("5 more")
