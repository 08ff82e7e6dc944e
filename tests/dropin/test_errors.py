"""Errors in the form that the path's own clients read: the proxy's, and the upstream's where it has another form."""

import json
from collections.abc import Iterator

import pytest

from tests.scripted import Json, marker
from tests.scripted_upstream import ScriptedUpstream
from tests.scripted_upstream.refusals import SHAPES
from tests.server import Heard, Line, Proxy

JSON = ("content-type", "application/json")

OPENAI = ("/v1/chat/completions", "/v1/embeddings", "/v1/responses", "/v1/rerank", "/rerank", "/v1/other", "/other")
OLLAMA = ("/api/chat", "/api/generate", "/api/embed", "/api/pull", "/api/other", "/api/completion")
ANTHROPIC = ("/v1/messages", "/v1/messages/count_tokens")
OURS = (
    "/api/completions",
    "/api/completions/batch",
    "/api/tasks",
    "/api/tasks/x",
    "/api/history/x",
    "/api/cache/stats",
)


@pytest.fixture
def line(front: Proxy) -> Iterator[Line]:
    with front.line() as connection:
        yield connection


def message(path: str, heard: Heard) -> str:
    """What an error says, which must have the form of the path's API."""
    assert heard.first("content-type") == "application/json"
    document: Json = json.loads(heard.body)
    if path in OLLAMA:
        assert document.keys() == {"error"}
        told = document["error"]
    elif path in ANTHROPIC:
        assert document.keys() == {"type", "error", "request_id"}
        assert document["type"] == "error"
        assert document["request_id"] == heard.first("x-request-id")
        assert document["error"].keys() >= {"type", "message"}
        told = document["error"]["message"]
    else:
        assert document.keys() == {"error"}
        assert document["error"].keys() == {"message", "type", "param", "code"}
        told = document["error"]["message"]
    assert isinstance(told, str)
    assert told
    return told


@pytest.mark.parametrize("path", [*OPENAI, *OLLAMA, *ANTHROPIC, *OURS])
def test_the_proxys_own_refusals(line: Line, path: str) -> None:
    foreign = line.ask("POST", path, [JSON, ("host", "evil.example")], b"{}")
    assert foreign.status == 403
    assert "evil.example" in message(path, foreign)


@pytest.fixture(scope="module")
def locked(upstream: ScriptedUpstream, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Proxy]:
    """A proxy with keys, a small limit, and a page that may call it."""
    settings = {"api_keys": "k", "max_body_bytes": 1000, "cors_origins": "http://page.example"}
    database = tmp_path_factory.mktemp("locked") / "llmproxy.db"
    with Proxy(upstream.url, database=database, **settings) as proxy:
        yield proxy


@pytest.mark.parametrize("origin", [(), (("origin", "http://page.example"),)], ids=["program", "page"])
@pytest.mark.parametrize("path", [*OPENAI, *OLLAMA, *ANTHROPIC])
def test_a_missing_key(locked: Proxy, path: str, origin: tuple[tuple[str, str], ...]) -> None:
    with locked.line() as line:
        heard = line.ask("POST", path, [JSON, *origin], b"{}")
    assert heard.status == 401
    assert "key" in message(path, heard)


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/api/chat", "/v1/messages", "/api/completions"])
def test_a_body_that_is_too_large(locked: Proxy, path: str) -> None:
    with locked.line() as line:
        heard = line.ask("POST", path, [JSON, ("authorization", "Bearer k")], b" " * 2000)
    assert heard.status == 413
    assert "1000" in message(path, heard)


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/api/chat", "/v1/messages"])
def test_what_only_the_cache_may_answer_and_a_coding_that_nobody_knows(line: Line, path: str) -> None:
    body = json.dumps({"model": "scripted", "messages": [{"role": "user", "content": marker()}]}).encode()
    heard = line.ask("POST", path, [JSON, ("cache-control", "only-if-cached")], body)
    assert heard.status == 504
    assert "upstream" in message(path, heard)
    heard = line.ask("POST", path, [JSON, ("content-encoding", "lzma")], body)
    assert heard.status == 415
    assert "lzma" in message(path, heard)


@pytest.fixture(scope="module")
def forsaken(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Proxy]:
    """A proxy whose upstream is not there."""
    with ScriptedUpstream() as gone:
        url = gone.url
    with Proxy(url, database=tmp_path_factory.mktemp("forsaken") / "llmproxy.db") as proxy:
        yield proxy


@pytest.mark.parametrize("path", [*OPENAI, *OLLAMA, *ANTHROPIC])
def test_an_upstream_that_is_not_there(forsaken: Proxy, path: str) -> None:
    with forsaken.line() as line:
        heard = line.ask("POST", path, [JSON], b'{"model": "m", "input": "x", "query": "x"}')
    assert heard.status == 502
    assert "Cannot connect" in message(path, heard)


TYPES = {
    400: "invalid_request_error",
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    422: "invalid_request_error",
    429: "rate_limit_error",
    500: "api_error",
    502: "api_error",
    504: "timeout_error",
    529: "overloaded_error",
}
NO_ERROR_OF_OPENAIS = ("ollama", "fastapi", "array", "text", "html", "empty", "not-text")


def asked(line: Line, path: str, shape: str, status: int = 418) -> Heard:
    content = f"{marker()} [script:status={status} shape={shape}]"
    body = {"model": "scripted", "messages": [{"role": "user", "content": content}], "prompt": content}
    heard = line.ask("POST", path, [JSON], json.dumps(body | {"input": content, "stream": False}).encode())
    assert heard.status == status
    return heard


@pytest.mark.parametrize("shape", NO_ERROR_OF_OPENAIS)
@pytest.mark.parametrize("path", ["/v1/messages", "/api/chat", "/api/generate", "/api/embed", "/v1/embeddings"])
def test_what_is_no_error_of_the_api_is_put_into_one(line: Line, path: str, shape: str) -> None:
    if (path in OLLAMA) == (shape == "ollama") and shape == "ollama":
        return
    heard = asked(line, path, shape)
    if shape == "fastapi" and path == "/v1/embeddings":
        assert json.loads(heard.body)["error"]["message"] == json.loads(heard.body)["detail"] == "refused with 418"
        return
    told = message(path, heard)
    assert "418" in told
    assert "<" not in told


@pytest.mark.parametrize(
    ("path", "shape"),
    [
        *(("/api/" + name, "ollama") for name in ("chat", "generate", "embed")),
        *((f"/v1/{name}", "openai") for name in ("chat/completions", "completions", "embeddings", "responses")),
        *((f"/v1/{name}", "llamacpp") for name in ("chat/completions", "rerank", "responses")),
        *(("/v1/messages", shape) for shape in ("anthropic", "overloaded")),
        ("/v1/chat/completions", "openrouter"),
        ("/v1/chat/completions", "llamacpp-context"),
    ],
)
def test_what_is_an_error_of_the_api_already_is_kept_to_the_byte(line: Line, path: str, shape: str) -> None:
    content_type, body = SHAPES[shape](418)
    heard = asked(line, path, shape)
    assert heard.body == body
    assert heard.first("content-type") == content_type


@pytest.mark.parametrize("status", TYPES)
def test_anthropics_clients_are_told_the_type_by_the_status(line: Line, status: int) -> None:
    heard = asked(line, "/v1/messages", "text", status)
    assert json.loads(heard.body)["error"] == {"type": TYPES[status], "message": f"refused with {status}"}


def test_an_error_of_openais_is_told_as_one_of_anthropics(line: Line) -> None:
    error = json.loads(asked(line, "/v1/messages", "llamacpp-context", 400).body)["error"]
    assert error["type"] == "invalid_request_error"
    assert "exceeds" in error["message"]
    assert error["n_ctx"] == 1024


@pytest.fixture(scope="module")
def pinging(upstream: ScriptedUpstream, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Proxy]:
    """A proxy that sends the head of a stream at once."""
    settings = {"ping_seconds": 0.05, "head_seconds": 0}
    database = tmp_path_factory.mktemp("pinging") / "llmproxy.db"
    with Proxy(upstream.url, database=database, **settings) as proxy:
        yield proxy


@pytest.mark.parametrize(
    ("path", "shape"),
    [("/v1/chat/completions", "openrouter"), ("/v1/messages", "overloaded"), ("/v1/chat/completions", "llamacpp")],
)
def test_a_refusal_that_comes_after_the_head_keeps_its_members(
    pinging: Proxy, upstream: ScriptedUpstream, path: str, shape: str
) -> None:
    gate = upstream.gate()
    prompt = f"{marker()} [script:status=429 shape={shape} gate={gate.name}]"
    body = {"model": "scripted", "stream": True, "messages": [{"role": "user", "content": prompt}]}
    with pinging.line() as line:
        line.request("POST", path, [JSON], json.dumps(body).encode())
        assert line.head().status_code == 200
        gate.open()
        stream = b"".join(iter(line.data, None))
    events = [part for part in stream.split(b"\n\n") if part and not part.startswith(b":")]
    data = next(part for part in events[-1].split(b"\n") if part.startswith(b"data: "))
    assert json.loads(data[6:]) == json.loads(SHAPES[shape](429)[1])


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/api/chat", "/v1/messages"])
def test_a_head_that_is_too_large(front: Proxy, path: str) -> None:
    with front.line() as line:
        line.send(f"POST {path} HTTP/1.1\r\nhost: 127.0.0.1\r\nx: {'x' * 200_000}\r\n\r\n".encode())
        head, _, body = line.rest().partition(b"\r\n\r\n")
    assert b" 431 " in head.splitlines()[0]
    document = json.loads(body)
    assert isinstance(document["error"], str) == (path in OLLAMA)
    assert (document.get("type") == "error") == (path in ANTHROPIC)


@pytest.mark.parametrize("kind", ["text/event-stream", "application/json"])
def test_an_error_that_anthropics_clients_get_instead_of_a_stream_keeps_its_request_id(
    line: Line, upstream: ScriptedUpstream, kind: str
) -> None:
    told = {"type": "error", "error": {"type": "overloaded_error", "message": "busy"}, "request_id": "req_theirs"}
    document, word = json.dumps(told).encode(), marker()
    body = b"event: error\ndata: %b\n\n" % document if kind == "text/event-stream" else document
    upstream.answer_with(word, lambda visit: body, kind)
    request = {"model": "m", "max_tokens": 1, "stream": True, "messages": [{"role": "user", "content": word}]}
    heard = line.ask("POST", "/v1/messages", [JSON], json.dumps(request).encode())
    assert heard.status == 502
    assert json.loads(heard.body) == told
