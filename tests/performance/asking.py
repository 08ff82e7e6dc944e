"""Requests to the program, and what it says of them."""

import json
from collections.abc import Mapping
from typing import Any

from tests.scripted import marker
from tests.server import Proxy

Json = dict[str, Any]

CHAT = "/v1/chat/completions"


def chat(proxy: Proxy, prompt: str = "", *, model: str = "scripted", stream: bool = False) -> int:
    """One chat, by default one that nobody has asked before. Returns the status."""
    body = {"model": model, "messages": [{"role": "user", "content": prompt or marker()}], "stream": stream}
    with proxy.line() as line:
        return line.ask("POST", CHAT, [("content-type", "application/json")], json.dumps(body).encode()).status


def told(proxy: Proxy, target: str, headers: Mapping[str, str] | None = None, *, status: int = 200) -> Json:
    """A document of the program's own."""
    with proxy.line() as line:
        heard = line.ask("GET", target, list((headers or {}).items()))
    assert heard.status == status, heard.body
    document: Json = json.loads(heard.body)
    return document


def scrape(proxy: Proxy) -> list[str]:
    """The samples of ``/metrics``, a line each."""
    with proxy.line() as line:
        heard = line.ask("GET", "/metrics")
    assert heard.status == 200
    return [line for line in heard.body.decode().splitlines() if not line.startswith("#")]
