"""Requests whose traces the page shows."""

import json
import time
from typing import Any
from urllib.parse import quote

from tests.server import Heard, Proxy
from tests.timeouts import WAIT_SECONDS

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


def wait_for_record(proxy: Proxy, heard: Heard) -> str:
    """The request's id, once the history has it: rows are written behind, and on a busy machine much later."""
    id, deadline = request_id(heard), time.monotonic() + WAIT_SECONDS
    with proxy.line() as line:
        while line.ask("GET", f"/api/history/{quote(id, safe='')}").status != 200:
            assert time.monotonic() < deadline
    return id


def wait_for_entries(proxy: Proxy, query: str, entries: int, hits: int) -> list[Json]:
    """The entries, once there are so many, and the history knows of so many hits: all of it is written behind."""
    deadline = time.monotonic() + WAIT_SECONDS
    while True:
        rows: list[Json] = get(proxy, f"/admin/cache/entries?{query}")["data"]
        if len(rows) == entries and all(row["question"] for row in rows) and sum(row["hits"] for row in rows) == hits:
            return rows
        assert time.monotonic() < deadline, rows


def request_id(heard: Heard) -> str:
    found = heard.first("x-request-id")
    assert found is not None
    return found
