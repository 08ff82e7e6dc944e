"""What a request for a Response says of its keeping, and what is left of it for the model server."""

from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmproxy.wire.errors import BadRequest, ProxyError, TooMany, UpstreamBroke, UpstreamStatus, envelope
from llmproxy.wire.responses_request import OURS, ResponsesRequest, response_error, unfinished


def read(by_default: bool = True, /, **body: Any) -> ResponsesRequest:
    return ResponsesRequest.read({"model": "m", "input": "hi", **body}, store=by_default)


@pytest.mark.parametrize("default", [False, True])
def test_what_says_nothing_is_stored_as_the_settings_want(default: bool) -> None:
    assert read(default).store is default
    assert read(default, store=None).store is default
    assert read(default, store=True).store is True
    assert read(default, store=False).store is False


@pytest.mark.parametrize(
    ("body", "plain"),
    [
        ({"store": False}, True),
        ({"store": False, "background": False}, True),
        ({}, False),
        ({"store": False, "background": True}, False),
        ({"store": False, "previous_response_id": "resp_1"}, False),
        ({"conversation": "conv_1"}, True),
        ({"input": 7}, True),
    ],
)
def test_what_does_not_concern_us_is_plain(body: dict[str, Any], plain: bool) -> None:
    assert read(**body).plain is plain


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"store": "yes"}, "store"),
        ({"background": 1}, "background"),
        ({"stream": "true"}, "stream"),
        ({"previous_response_id": 7}, "previous_response_id"),
        ({"previous_response_id": "resp_1", "conversation": "conv_1"}, "previous_response_id"),
        ({"previous_response_id": "resp_1", "input": [7]}, "input"),
        ({"background": True, "input": {"role": "user"}}, "input"),
    ],
)
def test_what_is_wrong_is_said_by_name(body: dict[str, Any], param: str) -> None:
    with pytest.raises(BadRequest) as caught:
        read(**body)
    assert caught.value.param == param


def test_a_body_that_needs_no_change_keeps_its_bytes() -> None:
    raw = b'{ "input": "hi",  "model": "m" }'
    assert ResponsesRequest.read(orjson.loads(raw), store=True).effective(raw, []) is raw


_values = st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(max_size=5)


@given(st.dictionaries(st.sampled_from(["model", "temperature", "metadata", "x", *OURS]), _values), st.integers(0, 3))
def test_the_model_server_gets_all_but_what_is_ours(body: dict[str, Any], before: int) -> None:
    request = ResponsesRequest({**body, "input": "hi"}, [{"role": "user"}], True, False, False, None)
    earlier = [{"place": place} for place in range(before)]
    sent = orjson.loads(request.effective(orjson.dumps(request.body), earlier))
    given = sent.pop("input")
    assert given == ([*earlier, {"role": "user"}] if earlier else "hi")
    assert sent == {name: value for name, value in body.items() if name not in OURS}


def test_an_unfinished_response_repeats_its_request() -> None:
    request = read(background=True, instructions="be brief", metadata={"a": "b"}, previous_response_id="resp_0")
    document = unfinished("resp_1", 5.9, "queued", orjson.loads(request.beside_input()))
    assert {**document} == document | {
        "id": "resp_1",
        "object": "response",
        "created_at": 5,
        "completed_at": None,
        "status": "queued",
        "output": [],
        "usage": None,
        "error": None,
        "store": True,
        "background": True,
        "instructions": "be brief",
        "metadata": {"a": "b"},
        "previous_response_id": "resp_0",
    }


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (UpstreamBroke("gone"), "server_error"),
        (UpstreamStatus(400, envelope("too long", "invalid_request_error")), "invalid_prompt"),
        (UpstreamStatus(429, envelope("slow down", "rate_limit_error")), "rate_limit_exceeded"),
        (UpstreamStatus(500, envelope("oops", "server_error")), "server_error"),
        (TooMany("slow down"), "rate_limit_exceeded"),
    ],
)
def test_why_a_response_failed_has_a_code_that_sdks_know(error: ProxyError, code: str) -> None:
    assert response_error(error) == {"code": code, "message": error.message}
