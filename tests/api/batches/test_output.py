"""Lines of output and error files."""

import json
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from llmproxy.api.batch_output import output_line, unfinished_line
from llmproxy.jobs.model import Failure, Item, ItemStatus

JOB = "batch_" + "0" * 32


def item(status: ItemStatus, **more: Any) -> Item:
    members: dict[str, Any] = {
        "id": 1,
        "position": 7,
        "label": "r7",
        "status": status,
        "attempts": 1,
        "started_at": 1.0,
        "finished_at": 2.0,
        "ended": 1,
        "status_code": None,
        "body": None,
        "error": None,
        "request_id": "req_7",
        "cache": "",
        "seconds": 0.0,
    }
    return Item(**members | more)


def test_an_answer_stands_in_the_line_as_the_bytes_it_is() -> None:
    body = b'{"b":1.0, "a":12345678901234567890123,"\xc3\xa9":"\xf0\x9f\x99\x82"}'
    line = output_line(JOB, item(ItemStatus.COMPLETED, status_code=200, body=body))
    assert b'"body":' + body + b"}" in line
    document = json.loads(line)
    assert document.keys() == {"id", "custom_id", "response", "error"}
    assert document["id"].startswith("batch_req_")
    assert document["custom_id"] == "r7"
    assert document["error"] is None
    assert {name: document["response"][name] for name in ("status_code", "request_id")} == {
        "status_code": 200,
        "request_id": "req_7",
    }


def test_an_answer_in_many_lines_becomes_one() -> None:
    body = json.dumps({"text": "a\nb\r\n"}, indent=2).replace("\n", "\r\n").encode()
    line = output_line(JOB, item(ItemStatus.COMPLETED, status_code=200, body=body))
    assert line.count(b"\n") == 1
    assert line.endswith(b"\n")
    assert b"\r" not in line
    assert json.loads(line)["response"]["body"] == {"text": "a\nb\r\n"}


def test_an_http_error_stands_in_response() -> None:
    failed = item(
        ItemStatus.FAILED, status_code=400, body=b'{"error":{"code":"x"}}', error=Failure("x", "it was refused")
    )
    document = json.loads(output_line(JOB, failed))
    assert document["response"] == {"status_code": 400, "request_id": "req_7", "body": {"error": {"code": "x"}}}
    assert document["error"] is None


def test_without_an_answer_error_says_why() -> None:
    failed = item(ItemStatus.FAILED, status_code=0, body=b"{}", error=Failure("upstream_error", "it broke off"))
    document = json.loads(output_line(JOB, failed))
    assert (document["response"], document["error"]) == (None, {"code": "upstream_error", "message": "it broke off"})


def test_an_answer_that_came_too_late_is_a_request_timeout() -> None:
    failed = item(ItemStatus.FAILED, status_code=0, error=Failure("upstream_timeout", "it took too long"))
    assert json.loads(output_line(JOB, failed))["error"]["code"] == "request_timeout"


def test_what_was_not_done() -> None:
    for status, code in ((ItemStatus.CANCELLED, "batch_cancelled"), (ItemStatus.EXPIRED, "batch_expired")):
        line = output_line(JOB, item(status))
        assert line == unfinished_line(JOB, 7, "r7", status)
        document = json.loads(line)
        assert (document["response"], document["error"]["code"]) == (None, code)


@settings(max_examples=50)
@given(st.text(st.characters(exclude_categories=["Cs"])), st.integers(0, 10**6))
def test_a_custom_id_comes_back_as_it_went_in_and_ids_are_the_lines_own(custom_id: str, position: int) -> None:
    first, second = (unfinished_line(JOB, at, custom_id, ItemStatus.EXPIRED) for at in (position, position + 1))
    assert first.count(b"\n") == 1
    assert json.loads(first)["custom_id"] == custom_id
    assert json.loads(first)["id"] != json.loads(second)["id"]
