"""Requests whose traces the page shows."""

import json
from typing import Any

from tests.server import Heard, Proxy

Json = dict[str, Any]


def chat(
    proxy: Proxy, prompt: str, *, model: str = "scripted", headers: dict[str, str] | None = None, **more: Any
) -> Heard:
    body = {"model": model, "messages": [{"role": "user", "content": prompt}], **more}
    return post(proxy, "/v1/chat/completions", body, headers)


def post(proxy: Proxy, target: str, body: Json, headers: dict[str, str] | None = None) -> Heard:
    sent = [("content-type", "application/json"), *(headers or {}).items()]
    with proxy.line() as line:
        heard = line.ask("POST", target, sent, json.dumps(body).encode())
    assert heard.status < 300, heard.body
    return heard


def get(proxy: Proxy, target: str, *, status: int = 200) -> Json:
    with proxy.line() as line:
        heard = line.ask("GET", target)
    assert heard.status == status, heard.body
    document: Json = json.loads(heard.body)
    return document


def request_id(heard: Heard) -> str:
    found = heard.first("x-request-id")
    assert found is not None
    return found
