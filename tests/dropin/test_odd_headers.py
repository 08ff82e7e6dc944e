"""What an upstream says in its head never costs the answer: what cannot be sent on is left out, everywhere."""

import json
from collections.abc import Iterator
from urllib.parse import quote

import pytest

from tests.scripted import CHAT, Json, marker
from tests.server import Line, Proxy

NAMES = ["openai-model", "x-request-id", "location", "x-ratelimit-limit-requests", "set-cookie", "traceparent"]
CONTROLS = ["a\x01b", "\x0b", "a\x7fb", "a\x1f", "\x1b[31m"]


@pytest.fixture
def line(front: Proxy) -> Iterator[Line]:
    with front.line() as connection:
        yield connection


def scripted(header: str, **more: object) -> str:
    options = "".join(f" {name}={value}" for name, value in more.items())
    return f"{marker()} [script:header={quote(header, safe='', encoding='latin-1')}{options}]"


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("value", CONTROLS)
@pytest.mark.parametrize("path", [CHAT.path, "/v1/things/1"])
@pytest.mark.parametrize("form", [{}, {"stream": True}, {"status": 429}], ids=["plain", "stream", "error"])
def test_a_control_character_in_a_header(line: Line, name: str, value: str, path: str, form: Json) -> None:
    status = form.get("status", 200) if path == CHAT.path else 200
    more = {"status": status, "times": 1} if status != 200 else {}
    body = json.dumps(CHAT.request(scripted(f"{name}:{value}", **more), stream=bool(form.get("stream")))).encode()
    heard = [line.ask("POST", path, body=body) for _ in range(3)]
    assert [each.status for each in heard] == [status, 200, 200]
    assert not any(value.strip() in each.all(name) for each in heard)
    assert all(each.body for each in heard)


@pytest.mark.parametrize("value", ["caf\u00e9", "\u00a0", "a\tb", "\u00ff\u00fe"])
def test_other_odd_values_pass_as_they_are(line: Line, value: str) -> None:
    body = json.dumps(CHAT.request(scripted(f"openai-model:{value}"))).encode()
    assert [line.ask("POST", CHAT.path, body=body).all("openai-model") for _ in range(3)] == [[value.strip(" ")]] * 3
    assert line.ask("POST", "/v1/things", body=body).all("openai-model") == [value]


def test_embeddings_too(line: Line) -> None:
    body = json.dumps({"model": "scripted", "input": scripted("openai-model:\x01")}).encode()
    assert [line.ask("POST", "/v1/embeddings", body=body).status for _ in range(3)] == [200, 200, 200]
