"""Whether a refusal speaks of the path or of what was asked there."""

import pytest

from llmproxy.upstream.missing import endpoint_missing


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (404, b"404 page not found"),
        (404, b""),
        (404, b"<html><title>404 Not Found</title></html>"),
        (404, b'{"detail":"Not Found"}'),
        (404, b'{"error":{"message":"File Not Found","type":"not_found_error","code":404}}'),
        (404, b'{"error":"Unexpected endpoint or method. (POST /v1/responses)"}'),
        (405, b'{"detail":"Method Not Allowed"}'),
    ],
)
def test_the_path_is_missing(status: int, body: bytes) -> None:
    assert endpoint_missing(status, body)


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (404, b'{"error":{"message":"model \'x\' not found","type":"api_error","param":null,"code":null}}'),
        (404, b'{"error":{"message":"The requested id does not exist.","code":"model_not_found"}}'),
        (404, b'{"error":{"message":"Not found","param":"previous_response_id","code":null}}'),
        (404, b'{"error":"model \'x\' not found, try pulling it first"}'),
        (404, b"no such model"),
        (400, b'{"detail":"Not Found"}'),
        (501, b"Not Implemented"),
        (200, b""),
    ],
)
def test_something_else_is_missing(status: int, body: bytes) -> None:
    assert not endpoint_missing(status, body)
