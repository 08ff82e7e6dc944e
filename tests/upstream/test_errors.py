"""Errors of every shape, in one."""

from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmproxy.upstream.errors import normalise, text_of
from llmproxy.wire.headers import HeaderList


def told(status: int, body: bytes, headers: HeaderList | None = None) -> dict[str, Any]:
    error = normalise(status, headers or [], body)
    assert error.http_status == status
    document: dict[str, Any] = orjson.loads(error.body())
    assert next(iter(document)) == "error"
    assert {"message", "type", "param", "code"} <= set(document["error"])
    members: dict[str, Any] = document["error"]
    return members


@pytest.mark.parametrize(
    ("status", "body", "expected"),
    [
        pytest.param(
            400,
            b'{"error":{"code":400,"message":"\'messages\' is required","type":"invalid_request_error"}}',
            ("'messages' is required", "invalid_request_error", None, None),
            id="llama.cpp",
        ),
        pytest.param(
            404,
            b'{"error":{"message":"model \'x\' not found","type":"not_found_error","param":null,"code":null}}',
            ("model 'x' not found", "not_found_error", None, None),
            id="ollama-v1",
        ),
        pytest.param(
            404,
            b'{"error":"model \'x\' not found"}',
            ("model 'x' not found", "not_found_error", None, None),
            id="ollama",
        ),
        pytest.param(404, b"404 page not found", ("404 page not found", "not_found_error", None, None), id="gin"),
        pytest.param(422, b'{"detail":"too long"}', ("too long", "invalid_request_error", None, None), id="fastapi"),
        pytest.param(
            401,
            b'{"error":{"message":"no","type":"x","param":"key","code":"invalid_api_key"}}',
            ("no", "x", "key", "invalid_api_key"),
            id="openai",
        ),
        pytest.param(
            429,
            b'{"type":"error","error":{"type":"rate_limit_error","message":"slow down"}}',
            ("slow down", "rate_limit_error", None, None),
            id="anthropic",
        ),
        pytest.param(400, b'{"message":"flat","code":17}', ("flat", "invalid_request_error", None, "17"), id="flat"),
        pytest.param(
            500, b'[{"error":{"message":"in a list"}}]', ("in a list", "server_error", None, None), id="array"
        ),
        pytest.param(
            502,
            b"<html><head><title>502 Bad Gateway</title></head><body><h1>nginx</h1></body></html>",
            ("502 Bad Gateway", "server_error", None, None),
            id="html",
        ),
        pytest.param(500, b"<p>Oh <b>no</b></p>", ("Oh no", "server_error", None, None), id="fragment"),
        pytest.param(
            415,
            b"",
            (
                "The model server answered 415 Unsupported Media Type and did not say why.",
                "invalid_request_error",
                None,
                None,
            ),
            id="empty",
        ),
        pytest.param(
            499,
            b"null",
            ("The model server answered 499 and did not say why.", "invalid_request_error", None, None),
            id="odd",
        ),
        pytest.param(
            400,
            b'{"error":{"message":{"a":1},"code":true,"type":7}}',
            ('{"message":{"a":1},"code":true,"type":7}', "invalid_request_error", None, None),
            id="wrong-types",
        ),
        pytest.param(403, b"\xff\xfe", ("\ufffd\ufffd", "permission_error", None, None), id="no-text"),
    ],
)
def test_every_shape_becomes_the_envelope(status: int, body: bytes, expected: tuple[Any, ...]) -> None:
    error = told(status, body)
    assert (error["message"], error["type"], error["param"], error["code"]) == expected


def test_further_members_are_kept() -> None:
    body = (
        b'{"error":{"code":400,"message":"too long","type":"exceed_context_size_error",'
        b'"n_prompt_tokens":2000,"n_ctx":1024}}'
    )
    assert told(400, body) == {
        "message": "too long",
        "type": "exceed_context_size_error",
        "param": None,
        "code": "context_length_exceeded",
        "n_prompt_tokens": 2000,
        "n_ctx": 1024,
    }


def test_a_long_message_is_cut() -> None:
    assert len(told(500, b"x" * 100_000)["message"]) == 2000


def headers(status: int, body: bytes, *given: tuple[bytes, bytes]) -> dict[bytes, bytes]:
    return dict(normalise(status, given, body).headers)


def test_every_header_but_those_of_the_body_and_cookies_passes() -> None:
    passed = {
        b"x-should-retry": b"true",
        b"request-id": b"r",
        b"openai-processing-ms": b"5",
        b"x-ratelimit-remaining-tokens": b"0",
        b"anthropic-ratelimit-requests-remaining": b"0",
        b"retry-after": b"7",
        b"retry-after-ms": b"6500",
        b"allow": b"GET",
        b"www-authenticate": b"Bearer",
        b"x-of-a-gateway": b"1",
    }
    others = [(b"content-type", b"text/html"), (b"set-cookie", b"a"), (b"content-length", b"9"), (b"server", b"x")]
    assert headers(429, b"", *passed.items(), *others) == passed


@pytest.mark.parametrize("given", [b"3600", b"0.5", b"Mon, 23 Nov 2026 11:00:00 GMT", b"soon"])
def test_retry_after_is_the_upstreams_own(given: bytes) -> None:
    assert headers(429, b"", (b"retry-after", given)) == {b"retry-after": given}


LOADING = b'{"error":{"message":"Loading model","type":"unavailable_error","code":503}}'


def test_a_loading_model_is_worth_another_try_soon() -> None:
    assert headers(503, LOADING) == {b"retry-after": b"2"}
    assert headers(503, LOADING, (b"retry-after", b"9")) == {b"retry-after": b"9"}


@pytest.mark.parametrize(
    ("status", "message", "retried"),
    [
        (501, "This server does not support embeddings", False),
        (501, "", False),
        (500, "image input is not supported - hint: you may need an mmproj", False),
        (500, "Compute error.", True),
        (502, "not supported", True),
    ],
)
def test_what_will_fail_again_is_not_to_be_retried(status: int, message: str, retried: bool) -> None:
    body = orjson.dumps({"error": {"message": message, "type": "server_error", "code": status}})
    assert headers(status, body) == ({} if retried else {b"x-should-retry": b"false"})


def test_the_upstreams_own_word_on_retries_counts() -> None:
    assert headers(501, b"", (b"x-should-retry", b"true")) == {b"x-should-retry": b"true"}


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["error", "detail", "message", "type", "code", "param"]) | st.text(), inner, max_size=4
        )
    ),
    max_leaves=12,
)


def dumped(value: Any) -> bytes:
    try:
        return orjson.dumps(value)
    except orjson.JSONEncodeError:
        return b"{}"


@settings(max_examples=300, deadline=None)
@given(st.integers(400, 599), st.binary(max_size=60) | JSON.map(dumped))
def test_any_bytes_give_a_valid_envelope(status: int, body: bytes) -> None:
    error = told(status, body)
    assert isinstance(error["message"], str)
    assert error["message"]
    assert isinstance(error["type"], str)
    assert error["code"] is None or isinstance(error["code"], str)
    assert error["param"] is None or isinstance(error["param"], str)


@pytest.mark.parametrize("depth", [5, 300, 1000])
@pytest.mark.parametrize(("opening", "closing"), [(b"[", b"]"), (b'{"error":', b"}"), (b'{"error":{"x":', b"}}")])
def test_deep_nesting_does_no_harm(depth: int, opening: bytes, closing: bytes) -> None:
    assert told(500, opening * depth + b'"x"' + closing * depth)["type"] == "server_error"


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (
            b'{"detail":[{"type":"missing","loc":["body","messages"],"msg":"Field required","input":{}}]}',
            "body.messages: Field required",
        ),
        (
            b'{"detail":[{"loc":["body","n"],"msg":"not a number"},{"loc":["body",0],"msg":"too long"}]}',
            "body.n: not a number; body.0: too long",
        ),
    ],
)
def test_what_fastapi_cannot_validate_is_readable_and_stays_beside(body: bytes, message: str) -> None:
    error = normalise(422, [], body)
    assert error.message == message
    assert orjson.loads(error.body())["detail"] == orjson.loads(body)["detail"]


def test_half_surrogates_and_raw_control_characters_do_no_harm() -> None:
    error = told(400, b'{"error":{"message":"a \\ud800 b\x01","code":NaN,"type":"\\udc00"}}')
    assert error["message"] == "a ? b\x01"


HOSTILE = (
    b"<script",
    b"<title",
    b"<style>",
    b"<",
    b"<!--",
    b"<a ",
    b"</script",
    b"<title>",
    b"><",
    b"<script>x</script",
    b"&#9999999999",
    b"<!-",
    b"\x00<\xff",
)


class Counted(bytes):
    """Bytes that count how many of them were looked at, in whatever was made of them."""

    work: list[int]

    def counting(self, work: list[int]) -> "Counted":
        self.work = work
        return self

    def lower(self) -> "Counted":
        self.work[0] += len(self)
        return Counted(super().lower()).counting(self.work)

    def find(self, sub: Any, start: Any = 0, end: Any = None) -> int:
        found = super().find(sub, start)
        self.work[0] += (len(self) if found < 0 else found) - start + len(sub)
        return found


@pytest.mark.parametrize(
    ("page", "text"),
    [
        (b"<html><head><title>502 Bad\n Gateway</title></head><body>nginx</body></html>", "502 Bad Gateway"),
        (b"<TITLE lang=en>Nope</TITLE>", "Nope"),
        (b"<title></title><h1>Down</h1>", "Down"),
        (b"<title>never closed", "never closed"),
        (b"<p>Oh <b>no</b></p><script>var a = '<b>';</script><style>p{}</style>!", "Oh no !"),
        (b"<!-- <b>hidden</b> --><p>shown</p>", "shown"),
        (b"<p>1 < 2", "1 < 2"),
        (b"<p>a</p><script>b", "a"),
        ("<p>gr\u00fc\u00df <i>dich</i></p>".encode(), "gr\u00fc\u00df dich"),
        (b"<p>\xff</p>", "\ufffd"),
        (b"", ""),
    ],
)
def test_what_a_person_reads(page: bytes, text: str) -> None:
    assert text_of(page) == text


@pytest.mark.parametrize("piece", HOSTILE)
@pytest.mark.parametrize("opening", [b"<p>", b"<", b"<title>", b"<script>"])
def test_the_work_grows_as_the_page_does(piece: bytes, opening: bytes) -> None:
    for times in (100, 1_000, 10_000):
        page = Counted(opening + piece * times).counting([0])
        text_of(page)
        assert page.work[0] <= 8 * len(page) + 100
