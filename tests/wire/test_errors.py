"""The forms of errors."""

from typing import Any

import orjson
import pytest

from llmproxy.upstream.errors import normalise
from llmproxy.wire.dialect import Dialect
from llmproxy.wire.errors import (
    ANTHROPIC_ERRORS,
    OLLAMA_ERRORS,
    OPENAI_ERRORS,
    PROBLEMS,
    BadRequest,
    Conflict,
    ErrorDialect,
    Forbidden,
    HeaderTooLarge,
    InternalError,
    MethodNotAllowed,
    NotFound,
    NotImplementedHere,
    OnlyIfCached,
    ProxyError,
    TooLarge,
    TooMany,
    TooSlow,
    Unauthorized,
    Unavailable,
    UnreadableBody,
    Unsupported,
    UpstreamBroke,
    UpstreamFault,
    UpstreamLoading,
    UpstreamRefused,
    UpstreamSlow,
    error_dialect,
    error_response,
)
from llmproxy.wire.formats.chat import CHAT
from llmproxy.wire.formats.messages import MESSAGES
from llmproxy.wire.formats.ollama import OLLAMA_CHAT
from llmproxy.wire.formats.responses import RESPONSES
from llmproxy.wire.framing import sse_data, sse_frame


@pytest.mark.parametrize(
    ("paths", "dialect"),
    [
        (
            "/v1/chat/completions /v1/models /v1 / /rerank /v1/messagesx /apix /api/completions /api/tasks/1",
            OPENAI_ERRORS,
        ),
        ("/api/history/x /api/performance /api/cache/stats /api/sessions /api/users /api/health", OPENAI_ERRORS),
        ("/api/chat /api/tags /api/blobs/sha256:x /api/ /api /api/completion /api/tasksx", OLLAMA_ERRORS),
        ("/v1/messages /v1/messages/count_tokens /v1/messages/batches", ANTHROPIC_ERRORS),
        ("/admin /admin/ /admin/cache/flush", PROBLEMS),
    ],
)
def test_the_path_decides(paths: str, dialect: ErrorDialect) -> None:
    for path in paths.split():
        assert error_dialect(path) is dialect, path


@pytest.mark.parametrize(
    ("error", "type"),
    [
        (TooLarge("x"), "request_too_large"),
        (TooMany("x"), "rate_limit_error"),
        (UpstreamSlow("x"), "timeout_error"),
        (UpstreamBroke("x"), "api_error"),
        (UpstreamFault({"type": "overloaded_error", "message": "x"}), "overloaded_error"),
        (UpstreamFault({"type": "server_error", "message": "x", "code": 7}), "api_error"),
    ],
)
def test_anthropics_types(error: ProxyError, type: str) -> None:
    _, body = error_response(error, "/v1/messages", "req_1")
    document = orjson.loads(body)
    assert (document["type"], document["request_id"]) == ("error", "req_1")
    assert document["error"]["type"] == type
    assert "param" not in document["error"]


OWN: dict[str, Any] = {"error": {"message": "no", "code": 429, "metadata": {"a": 1}}, "user_id": "u"}


def last(dialect: Dialect, error: ProxyError) -> Any:
    frame = dialect.failure(error, "req_1")
    return orjson.loads(frame if dialect is OLLAMA_CHAT else sse_data(frame))


def test_what_the_upstream_said_is_said_inside_a_stream_too() -> None:
    """The head of the stream may have been sent for pings before the upstream refused."""
    refused = normalise(429, [], orjson.dumps(OWN))
    assert last(CHAT, refused) == OWN
    assert last(OLLAMA_CHAT, refused) == {"error": "no"}
    told = last(RESPONSES, refused)
    assert told["error"] == OWN["error"]
    assert (told["type"], told["message"], told["code"]) == ("error", "no", 429)
    told = last(MESSAGES, refused)
    assert told["error"] == {"message": "no", "type": "rate_limit_error", "metadata": {"a": 1}}


def test_an_error_of_anthropics_stays_one() -> None:
    own = {"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}, "request_id": "theirs"}
    assert last(MESSAGES, normalise(529, [], orjson.dumps(own))) == own
    assert last(MESSAGES, UpstreamSlow("too slow")) == {
        "type": "error",
        "error": {"type": "timeout_error", "message": "too slow", "code": "upstream_timeout"},
        "request_id": "req_1",
    }


def test_a_text_of_ollamas_stays_one() -> None:
    own = {"error": "no", "signin_url": "http://x"}
    assert last(OLLAMA_CHAT, normalise(401, [], orjson.dumps(own))) == own
    assert last(CHAT, normalise(401, [], orjson.dumps(own)))["error"] == {
        "message": "no",
        "type": "authentication_error",
        "param": None,
        "code": None,
        "signin_url": "http://x",
    }


@pytest.mark.parametrize("name", [b"error", b""], ids=["named", "unnamed"])
def test_the_servers_name_of_a_request_is_kept_where_its_stream_tells_an_error(name: bytes) -> None:
    error = {"type": "overloaded_error", "message": "busy"}
    told = {"type": "error", "error": error, "request_id": "req_theirs"}
    fault = MESSAGES.fault(sse_frame(orjson.dumps(told), name))
    assert fault is not None
    assert orjson.loads(sse_data(fault.frame)) == told
    _, body = error_response(UpstreamFault(fault.error, fault.frame, fault.request_id), "/v1/messages", "req_ours")
    assert orjson.loads(body) == told


@pytest.mark.parametrize(
    ("error", "status", "type", "code"),
    [
        (ProxyError, 500, "server_error", None),
        (BadRequest, 400, "invalid_request_error", None),
        (UnreadableBody, 400, "invalid_request_error", None),
        (Unauthorized, 401, "invalid_request_error", "invalid_api_key"),
        (Forbidden, 403, "invalid_request_error", "forbidden"),
        (NotFound, 404, "invalid_request_error", "not_found"),
        (MethodNotAllowed, 405, "invalid_request_error", "method_not_allowed"),
        (TooSlow, 408, "invalid_request_error", "request_timeout"),
        (Conflict, 409, "invalid_request_error", "conflict"),
        (TooLarge, 413, "invalid_request_error", "request_too_large"),
        (Unsupported, 415, "invalid_request_error", "unsupported_content_encoding"),
        (TooMany, 429, "rate_limit_error", "rate_limit_exceeded"),
        (HeaderTooLarge, 431, "invalid_request_error", "request_header_fields_too_large"),
        (UpstreamRefused, 502, "server_error", "upstream_unreachable"),
        (UpstreamBroke, 502, "server_error", "upstream_error"),
        (UpstreamSlow, 504, "timeout_error", "upstream_timeout"),
        (UpstreamLoading, 503, "server_error", "upstream_loading"),
        (OnlyIfCached, 504, "invalid_request_error", "only_if_cached"),
        (NotImplementedHere, 501, "invalid_request_error", "not_implemented"),
        (Unavailable, 503, "server_error", "store_unavailable"),
        (InternalError, 500, "server_error", "internal_error"),
    ],
)
def test_every_error_has_its_status_and_code(error: type[ProxyError], status: int, type: str, code: str | None) -> None:
    made = error("why")
    assert made.http_status == status
    assert made.document() == {"error": {"message": "why", "type": type, "param": None, "code": code}}


def test_clients_are_told_what_not_to_repeat() -> None:
    assert Conflict("x", headers=((b"a", b"b"),)).headers == ((b"x-should-retry", b"false"), (b"a", b"b"))
    assert TooSlow("x").headers == ((b"connection", b"close"),)


def test_the_message_of_a_fault_is_a_text() -> None:
    fault = UpstreamFault({"message": {"deep": 1}, "type": "t", "param": None, "slot": 3})
    assert fault.document() == {
        "error": {"message": fault.message, "type": "t", "param": None, "code": None, "slot": 3}
    }
    assert isinstance(fault.message, str)
