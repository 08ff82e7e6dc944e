import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmproxy.history.record import COLUMNS, LARGEST, LONGEST_TEXT, Recorder, Redactor, Row
from llmproxy.wire.exchange import Caller, Exchange, RepeatHit, Usage
from tests.history.exchanges import FETCHED, fetched


def named(row: Row) -> dict[str, Any]:
    return dict(zip(COLUMNS, row, strict=True))


def test_every_column_has_its_value() -> None:
    assert named(Recorder(1000).row(FETCHED)) == {
        "request_id": "req-1",
        "created_at": 1_700_000_000.0,
        "finished_at": 1_700_000_004.5,
        "user_name": "u-1",
        "session": "s-1",
        "caller": "ann",
        "endpoint": "chat",
        "method": "POST",
        "path": "/v1/chat/completions",
        "model": "smollm2",
        "upstream": "http://127.0.0.1:8080",
        "status": 200,
        "cache": "miss",
        "reason": "absent",
        "stored": "stored",
        "cache_key": "ab12",
        "namespace": "n-1",
        "stream": True,
        "prompt_tokens": 12,
        "completion_tokens": 34,
        "queue_seconds": 0.25,
        "first_token_seconds": 1.0,
        "total_seconds": 4.5,
        "upstream_seconds": 4.0,
        "error": "",
        "body_bytes": 15,
        "detail": json.dumps(
            {
                "phases": {"limit": 250000},
                "identity": "weights",
                "scope": "2bb80d537b1d",
                "query": "e1dd522f23da",
                "plain_query": "api-version=1",
            },
            separators=(",", ":"),
        ),
        "request_body": b"request",
        "response_body": b"response",
    }


def test_an_exchange_of_which_little_is_known() -> None:
    bare = Exchange(request_id="r", method="GET", path="/", started=1.0, started_at=2.0)
    row = named(Recorder(1000).row(bare))
    assert (row["finished_at"], row["total_seconds"], row["status"], row["body_bytes"]) == (2.0, 0.0, 0, 0)
    unknown = ("queue_seconds", "first_token_seconds", "upstream_seconds", "prompt_tokens", "request_body")
    assert [row[name] for name in unknown] == [None] * 5
    assert [row[name] for name in ("cache", "reason", "stored", "cache_key", "error")] == [""] * 5


def test_bodies_are_cut_and_counted_as_cut() -> None:
    row = named(Recorder(4).row(fetched(request_body=b"abc")))
    assert (row["request_body"], row["response_body"], row["body_bytes"]) == (b"abc", b"resp", 7)


def test_bodies_are_left_out_when_not_wanted() -> None:
    row = named(Recorder(None).row(FETCHED))
    assert (row["request_body"], row["response_body"], row["body_bytes"]) == (None, None, 0)


def test_bodies_that_were_cut_are_named() -> None:
    recorder = Recorder(7)
    rows = [
        named(recorder.row(fetched(request_body=b"1234567", response_body=body))) for body in (b"1234567", b"12345678")
    ]
    assert [json.loads(row["detail"]).get("cut") for row in rows] == [None, ["response"]]


def test_little_detail_is_a_short_text() -> None:
    bare = Exchange(request_id="r", method="GET", path="/", started=1.0, started_at=2.0)
    assert named(Recorder(1000).row(bare))["detail"] == "{}"


def test_who_says_no_name_has_that_of_the_key() -> None:
    assert named(Recorder(None).row(fetched(user="")))["user_name"] == "ann"


def test_what_must_not_be_kept_is_removed_before_the_body_is_cut() -> None:
    recorder = Recorder(12, Redactor(["bob@example.com"]))
    row = recorder.row(
        fetched(request_body=b"0123456789 bob@example.com, and more", response_body=b"mail bob@example.com")
    )
    (finished,) = recorder.finished([row])
    done = named(finished)
    assert (done["request_body"], done["response_body"]) == (b"0123456789 [", b"mail [redact")
    assert done["body_bytes"] == 24
    assert {name: value for name, value in done.items() if "body" not in name} == {
        name: value for name, value in named(row).items() if "body" not in name
    }


def test_what_lies_across_the_margin_is_not_kept_by_half() -> None:
    """What is removed before it brings the end of what was searched into what is kept."""
    recorder = Recorder(10_000, Redactor([r"\w+@example\.com"]))
    addresses = b" ".join(b"a" * 100 + b"%04d@example.com" % number for number in range(200))
    (done,) = map(named, recorder.finished([recorder.row(fetched(request_body=addresses))]))
    assert len(done["request_body"]) > 500
    assert b"aaa" not in done["request_body"]
    assert done["body_bytes"] == len(done["request_body"]) + len(b"response")


def test_an_error_that_repeats_what_was_said_is_searched_too() -> None:
    recorder = Recorder(None, Redactor([r"\w+@example\.com"]))
    row = recorder.row(fetched(error="the model does not know bob@example.com"))
    (done,) = map(named, recorder.finished([row]))
    assert done["error"] == "the model does not know [redacted]"


def test_without_patterns_rows_stay_the_same_objects() -> None:
    rows = [Recorder(1000).row(FETCHED)]
    assert Recorder(1000, Redactor([])).finished(rows) is rows


def test_hits_of_one_answer_are_searched_once() -> None:
    searches: list[bytes] = []

    class Counting(Redactor):
        def redacted(self, body: bytes) -> bytes:
            searches.append(body)
            return super().redacted(body)

    recorder = Recorder(1000, Counting(["x"]))
    rows = list(recorder.rows_like(FETCHED, [RepeatHit(FETCHED, str(number), 1.0, 0.5) for number in range(5)]))
    assert len(recorder.finished(rows)) == 5
    assert searches == [b"request", b"response"]


def test_many_hits_are_what_they_are_one_by_one() -> None:
    recorder = Recorder(1000)
    hits = [RepeatHit(FETCHED, "a", 100.0, 0.5), RepeatHit(FETCHED, "b", 200.0, 0.25)]
    one_by_one = [
        fetched(
            request_id=hit.request_id,
            started_at=hit.started_at,
            started=0.0,
            first_byte=hit.seconds,
            finished=hit.seconds,
        )
        for hit in hits
    ]
    assert list(recorder.rows_like(FETCHED, hits)) == list(map(recorder.row, one_by_one))


@given(st.text(max_size=2000) | st.sampled_from(["\ud800", "a\0b", "x" * 5000, "é\ud83d"]))
@settings(max_examples=100, deadline=None)
def test_text_is_what_every_database_takes(text: str) -> None:
    everywhere = fetched(
        request_id=text,
        user=text or "u",
        session=text,
        caller=Caller(text),
        path=text,
        model=text,
        upstream=text,
        error=text,
        namespace=text,
        identity=text,
    )
    row = named(Recorder(1000).row(everywhere))
    json.loads(row["detail"])
    for name in ("request_id", "session", "caller", "path", "model", "upstream", "error", "namespace"):
        assert "\0" not in row[name]
        assert len(row[name].encode("utf-8")) <= LONGEST_TEXT * 4
        assert row[name] == text or not text.isprintable() or len(text) > LONGEST_TEXT


@pytest.mark.parametrize(("claimed", "kept"), [(None, None), (0, 0), (7, 7), (10**30, LARGEST), (-(10**30), 0)])
def test_tokens_fit_whatever_an_upstream_claims(claimed: int | None, kept: int | None) -> None:
    row = named(Recorder(1000).row(fetched(usage=Usage(claimed, claimed))))
    assert (row["prompt_tokens"], row["completion_tokens"]) == (kept, kept)


def test_the_scope_is_not_kept() -> None:
    assert "secret" not in repr(Recorder(1000).row(FETCHED))
