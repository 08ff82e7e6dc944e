"""What is not HTTP at all gets our envelope too."""

import json

import pytest

from tests.server import Proxy


@pytest.mark.parametrize(
    "data", [b"hello there\r\n\r\n", b"GET / HTTP/1.1\r\nno colon\r\n\r\n", b"\x16\x03\x01\x02\x00"]
)
def test_what_is_no_http_is_told_so_in_the_envelope(front: Proxy, data: bytes) -> None:
    with front.line() as line:
        line.send(data)
        head, _, body = line.rest().partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 400 ")
    assert set(json.loads(body)["error"]) == {"message", "type", "param", "code"}


def test_who_is_refused_before_a_request_line_is_told_why(front: Proxy) -> None:
    with front.line() as line:
        line.send(b"\r\n" * 40_000)
        head, _, body = line.rest().partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 431 ")
    assert json.loads(body)["error"]["message"]
