"""What uploads and lists may ask for."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmproxy.api.file_model import (
    BATCH_SECONDS,
    HEAD,
    OUTPUTS,
    PURPOSES,
    check_begins_as_jsonl,
    lifetime_of,
    purpose_of,
    read_list_query,
)
from llmproxy.wire.errors import BadRequest
from llmproxy.wire.validation import idempotency_key


@pytest.mark.parametrize("purpose", PURPOSES)
def test_purposes(purpose: str) -> None:
    assert purpose_of({"purpose": purpose}) == purpose


def test_a_purpose_is_needed() -> None:
    with pytest.raises(BadRequest, match=r"^'purpose' is a required property$"):
        purpose_of({})


@pytest.mark.parametrize("purpose", ["", "Batch", "x" * 1000, *OUTPUTS])
def test_other_purposes_are_refused(purpose: str) -> None:
    with pytest.raises(BadRequest, match=r"is not one of \['assistants', 'batch', .*\] - 'purpose'$") as told:
        purpose_of({"purpose": purpose})
    assert len(told.value.message) < 300


def expiring(anchor: str = "created_at", seconds: str = "3600") -> dict[str, str]:
    return {"expires_after[anchor]": anchor, "expires_after[seconds]": seconds}


@pytest.mark.parametrize("seconds", ["3600", "2592000"])
def test_a_lifetime(seconds: str) -> None:
    assert lifetime_of(expiring(seconds=seconds), "batch") == int(seconds)


def test_without_one_only_files_of_batches_expire() -> None:
    lifetimes = {purpose: lifetime_of({}, purpose) for purpose in PURPOSES}
    assert lifetimes == {**dict.fromkeys(PURPOSES), "batch": BATCH_SECONDS}


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"expires_after[anchor]": "created_at"}, "expires_after.seconds"),
        ({"expires_after[seconds]": "3600"}, "expires_after.anchor"),
        (expiring(anchor="last_used_at"), "expires_after.anchor"),
        *((expiring(seconds=bad), "expires_after.seconds") for bad in ("3599", "2592001", "-1", "", "1e4", "1" * 40)),
    ],
)
def test_a_bad_lifetime_is_refused(fields: dict[str, str], param: str) -> None:
    with pytest.raises(BadRequest) as told:
        lifetime_of(fields, "user_data")
    assert told.value.param == param


@given(st.dictionaries(st.text(max_size=5), st.text(max_size=20), max_size=4), st.text(max_size=50))
@settings(max_examples=50)
def test_whatever_follows_a_first_line_that_is_an_object(members: dict[str, str], rest: str) -> None:
    check_begins_as_jsonl(json.dumps(members).encode() + b"\n" + rest.encode())


@pytest.mark.parametrize(
    "head",
    [
        b"",
        b"\n \r\n",
        b'\n\n  {"a": 1}',
        b'\xef\xbb\xbf{"a": 1}\n{',
        b'{"long": "' + b"x" * HEAD,
        b'{"exactly as long as is looked at": 1}'.ljust(HEAD),
    ],
)
def test_what_may_be_jsonl(head: bytes) -> None:
    check_begins_as_jsonl(head[:HEAD])


@pytest.mark.parametrize(
    "head", [b"hello", b'{"a": 1', b'{"a":\n1}', b"[1]\n", b"1\n{}", b"\x89PNG\r\n", b"[" * HEAD, b"\xff\xfe{\0"]
)
def test_what_is_no_jsonl(head: bytes) -> None:
    with pytest.raises(BadRequest, match=r"^Invalid file format for Batch API. Must be .jsonl$") as told:
        check_begins_as_jsonl(head)
    assert told.value.document()["error"] == {
        "message": "Invalid file format for Batch API. Must be .jsonl",
        "type": "invalid_request_error",
        "param": None,
        "code": None,
    }


def test_a_list() -> None:
    usual = read_list_query({}, "")
    assert (usual.purpose, usual.after, usual.limit, usual.newest_first) == (None, None, 10_000, True)
    other = read_list_query(
        {"purpose": "batch_output", "after": "file-a", "limit": "1", "order": "asc", "other": "x"}, ""
    )
    assert (other.purpose, other.after, other.limit, other.newest_first) == ("batch_output", "file-a", 1, False)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *(("limit", bad) for bad in ("0", "10001", "-1", "", "ten", "1.5", "9" * 50)),
        ("order", "newest"),
        ("purpose", "none\0"),
    ],
)
def test_a_bad_list_is_refused(name: str, value: str) -> None:
    with pytest.raises(BadRequest) as told:
        read_list_query({name: value}, "")
    assert told.value.param == name


def test_idempotency_keys() -> None:
    assert idempotency_key([]) is None
    assert idempotency_key([(b"idempotency-key", b"k" * 255)]) == "k" * 255
    for bad in (b"", b"k" * 256, b"two words", "schlüssel".encode()):
        with pytest.raises(BadRequest):
            idempotency_key([(b"idempotency-key", bad)])
