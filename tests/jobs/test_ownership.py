"""What a caller made is that caller's, even where all share the cache: to the others it is as if it never was."""

import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import httpx
import pytest

from tests.scripted import marker
from tests.scripted_upstream import ScriptedUpstream
from tests.server import Proxy

Json = dict[str, Any]

WORD = marker()


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind of thing: its list, how one is made, and what can be asked of it."""

    listed: str
    make: Callable[[httpx.Client], str]
    asks: tuple[tuple[str, str], ...]


def file(client: httpx.Client) -> str:
    line = {"custom_id": "1", "method": "POST", "url": "/v1/chat/completions", "body": {"model": "m", "messages": []}}
    form = {"purpose": "batch"}
    return str(client.post("/v1/files", data=form, files={"file": json.dumps(line)}).json()["id"])


def batch(client: httpx.Client) -> str:
    wanted = {"input_file_id": file(client), "endpoint": "/v1/chat/completions", "completion_window": "24h"}
    return str(client.post("/v1/batches", json=wanted).json()["id"])


def task(client: httpx.Client) -> str:
    return str(client.post("/api/completions", json={"prompt": WORD, "background": True}).json()["task_id"])


def response(client: httpx.Client) -> str:
    return str(client.post("/v1/responses", json={"model": "m", "input": WORD}).json()["id"])


def background(client: httpx.Client) -> str:
    wanted = {"model": "m", "input": WORD, "background": True, "stream": False}
    return str(client.post("/v1/responses", json=wanted).json()["id"])


def chat(client: httpx.Client) -> str:
    wanted = {"model": "m", "messages": [{"role": "user", "content": WORD}], "store": True}
    return str(client.post("/v1/chat/completions", json=wanted).json()["id"])


def turned(id: str) -> str:
    """An id of the same form: the same place in time, where it tells one."""
    return id[:-12] + id[-12:].translate(str.maketrans("0123456789abcdef", "123456789abcdef0"))


def asks(*further: tuple[str, str]) -> tuple[tuple[str, str], ...]:
    return (("GET", ""), ("HEAD", ""), ("DELETE", ""), ("POST", ""), *further)


KINDS = {
    "file": Kind("/v1/files", file, asks(("GET", "/content"))),
    "batch": Kind("/v1/batches", batch, asks(("POST", "/cancel"))),
    "task": Kind("/api/tasks", task, asks(("GET", "/events"), ("GET", "?cursor=0"))),
    "response": Kind(
        "",
        response,
        (("GET", ""), ("DELETE", ""), ("POST", "/cancel"), ("GET", "/input_items"), ("GET", "?stream=true")),
    ),
    "background": Kind(
        "",
        background,
        (("GET", ""), ("DELETE", ""), ("POST", "/cancel"), ("GET", "?stream=true&starting_after=0")),
    ),
    "chat": Kind(
        "/v1/chat/completions",
        chat,
        (("GET", ""), ("DELETE", ""), ("POST", ""), ("GET", "/messages"), ("GET", "/messages?after=x")),
    ),
}
PATHS = {"response": "/v1/responses", "background": "/v1/responses"}


@pytest.fixture(scope="module")
def sharing(upstream: ScriptedUpstream, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Proxy]:
    """Callers with keys, and one cache for all of them."""
    folder = tmp_path_factory.mktemp("sharing")
    keys = {"api_keys": "ann:one,bob:two", "admin_token": "t0ken", "cache_scope": "shared"}
    with Proxy(upstream.url, database=folder / "llmproxy.db", **keys) as proxy:
        yield proxy


def client_of(proxy: Proxy, key: str) -> httpx.Client:
    return httpx.Client(base_url=proxy.url, headers={"authorization": f"Bearer {key}"}, trust_env=False, timeout=60)


def said(answer: httpx.Response, id: str) -> tuple[int, str, list[tuple[str, str]]]:
    """An answer without the id that it repeats, and what differs from one answer to the next."""
    varying = {"date", "x-request-id", "server-timing", "content-length"}
    headers = [(name, value) for name, value in answer.headers.items() if name not in varying]
    return answer.status_code, answer.text.replace(id, "ID"), headers


def page(answer: httpx.Response) -> tuple[int, list[str], Json]:
    """Which are listed, and what is said of the rest: the work on them goes on meanwhile."""
    document = answer.json()
    listed = document.pop("data", [])
    return answer.status_code, [each.get("id") or each["task_id"] for each in listed], document


@pytest.mark.parametrize("name", KINDS)
def test_anothers_is_answered_like_what_never_was(sharing: Proxy, name: str) -> None:
    kind = KINDS[name]
    path = PATHS.get(name, kind.listed)
    with client_of(sharing, "one") as ann, client_of(sharing, "two") as bob:
        hers = kind.make(ann)
        never = turned(hers)
        assert never != hers
        for method, tail in kind.asks:
            body: Json | None = {"metadata": {}} if method == "POST" else None
            known = bob.request(method, f"{path}/{hers}{tail}", json=body)
            unknown = bob.request(method, f"{path}/{never}{tail}", json=body)
            assert said(known, hers) == said(unknown, never), (method, tail)
            assert known.status_code >= 400
        # and all that did nothing to it
        assert ann.get(f"{path}/{hers}").status_code == 200


@pytest.mark.parametrize("name", [name for name, kind in KINDS.items() if kind.listed])
def test_a_page_behind_anothers_is_the_page_behind_what_never_was(sharing: Proxy, name: str) -> None:
    kind = KINDS[name]
    with client_of(sharing, "one") as ann, client_of(sharing, "two") as bob:
        kind.make(bob)
        hers = kind.make(ann)
        kind.make(bob)
        listed = bob.get(kind.listed).json()["data"]
        assert listed
        assert hers not in json.dumps(listed)
        for query in ("after={}", "cursor={}", "after={}&order=asc", "after={}&order=desc", "after={}&limit=1"):
            known = bob.get(f"{kind.listed}?{query.format(hers)}")
            unknown = bob.get(f"{kind.listed}?{query.format(turned(hers))}")
            assert page(known) == page(unknown), query


def test_a_batch_reads_no_file_of_anothers(sharing: Proxy) -> None:
    with client_of(sharing, "one") as ann, client_of(sharing, "two") as bob:
        hers = file(ann)
        answers = []
        for id in (hers, turned(hers)):
            wanted = {"input_file_id": id, "endpoint": "/v1/chat/completions", "completion_window": "24h"}
            made = bob.post("/v1/batches", json=wanted).json()
            while (ended := bob.get(f"/v1/batches/{made['id']}").json())["status"] not in ("failed", "completed"):
                pass
            answers.append((ended["status"], json.dumps(ended["errors"]).replace(id, "ID")))
        assert answers[0] == answers[1]
        assert answers[0][0] == "failed"


def test_no_conversation_goes_on_from_anothers_response(sharing: Proxy, upstream: ScriptedUpstream) -> None:
    word = marker()
    with client_of(sharing, "one") as ann, client_of(sharing, "two") as bob:
        hers = response(ann)
        for more in ({}, {"background": True}, {"stream": True}):
            told = []
            for id in (hers, turned(hers)):
                wanted = {"model": "m", "input": word, "previous_response_id": id, **more}
                told.append(said(bob.post("/v1/responses", json=wanted), id))
            assert told[0] == told[1]
            assert told[0][0] in (400, 404)
    assert upstream.visits(word) == []


def test_the_same_idempotency_key_of_two_callers_names_two_things(sharing: Proxy) -> None:
    key = {"idempotency-key": WORD}
    with client_of(sharing, "one") as ann, client_of(sharing, "two") as bob:
        for path, body in (
            ("/api/completions", {"prompt": WORD, "background": True}),
            ("/v1/responses", {"model": "m", "input": WORD, "background": True}),
        ):
            made = [client.post(path, json=body, headers=key).text for client in (ann, bob, ann)]
            ids = [re.findall(r"(?:task|resp)_[0-9a-z]{20,}", text)[0] for text in made]
            assert ids[0] == ids[2] != ids[1]


def test_the_cache_is_shared_all_the_same(sharing: Proxy, upstream: ScriptedUpstream) -> None:
    word = marker()
    wanted = {"model": "m", "messages": [{"role": "user", "content": word}]}
    with client_of(sharing, "one") as ann, client_of(sharing, "two") as bob:
        assert ann.post("/v1/chat/completions", json=wanted).headers["x-cache"] == "MISS"
        assert bob.post("/v1/chat/completions", json=wanted).headers["x-cache"] == "HIT"
        # a job of either finds it too
        task = ann.post("/api/completions", json={"prompt": word, "model": "m"}).json()
        assert task["cached"] is False
        assert bob.post("/api/completions", json={"prompt": word, "model": "m"}).json()["cached"] is True
