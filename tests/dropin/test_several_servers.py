"""Two model servers behind one proxy: who gets what, and what a caller sees of both."""

import base64
import json
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.scripted import marker
from tests.scripted_upstream import ScriptedUpstream
from tests.server import Proxy

CHAT = {"messages": [{"role": "user", "content": "x"}], "max_tokens": 5}
BOUNDARY = "----form"


@pytest.fixture(scope="module")
def llama() -> Iterator[ScriptedUpstream]:
    """The first server, with a model of its own."""
    with ScriptedUpstream("llamacpp", lacks=frozenset({"/v1/models/alpha", "/v1/models/first"})) as server:
        entry = {"id": "alpha", "object": "model", "created": 1, "owned_by": "llamacpp", "aliases": ["first"]}
        server.pages["/v1/models"] = {"models": [{"name": "alpha"}], "object": "list", "data": [entry]}
        yield server


@pytest.fixture(scope="module")
def ollama() -> Iterator[ScriptedUpstream]:
    with ScriptedUpstream("ollama") as server:
        having(server, "beta:latest")
        server.pages["/v1/models/beta"] = {"id": "beta", "object": "model", "by": "its page"}
        yield server


def having(server: ScriptedUpstream, *names: str) -> None:
    """From now on an Ollama has these models."""
    server.pages["/api/tags"] = {"models": [{"name": name, "model": name, "digest": "d"} for name in names]}
    server.pages["/v1/models"] = {"object": "list", "data": [{"id": name, "object": "model"} for name in names]}


@pytest.fixture(scope="module")
def http(
    llama: ScriptedUpstream, ollama: ScriptedUpstream, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[httpx.Client]:
    database: Path = tmp_path_factory.mktemp("several") / "llmproxy.db"
    with (
        Proxy(llama.url, ollama.url, database=database, identity_seconds=1000) as proxy,
        httpx.Client(base_url=proxy.url, timeout=60, trust_env=False) as client,
    ):
        yield client


def form(*fields: tuple[str, bytes]) -> bytes:
    parts = [f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="{n}"\r\n\r\n'.encode() + v for n, v in fields]
    return b"\r\n".join([*parts, f"--{BOUNDARY}--\r\n".encode()])


@pytest.mark.parametrize(
    "path",
    [
        "/v1/messages/count_tokens?beta=true",
        "/v1/responses/input_tokens",
        "/v1/images/generations",
        "/v1/audio/speech",
        "/tokenize",
        "/models/load",
    ],
)
def test_a_passed_path_goes_to_the_server_of_the_model_it_names(
    http: httpx.Client, llama: ScriptedUpstream, ollama: ScriptedUpstream, path: str
) -> None:
    for model, server in (("alpha", llama), ("first", llama), ("beta", ollama), (" BETA:latest", ollama)):
        word = marker()
        # the name comes last, behind more than a piece of the body
        body = json.dumps({"input": word + "x" * 200_000, "model": model}).encode()
        answer = http.post(path, content=body, headers={"content-type": "application/json"})
        assert answer.status_code == 200
        assert len(server.visits(word)) == 1, model
        assert base64.b64decode(answer.json()["body"]) == body[:4096]
        assert answer.json()["size"] == len(body)


def test_a_form_goes_to_the_server_of_the_model_it_names(
    http: httpx.Client, llama: ScriptedUpstream, ollama: ScriptedUpstream
) -> None:
    headers = {"content-type": f"multipart/form-data; boundary={BOUNDARY}"}
    for model, server in ((b"alpha", llama), (b"beta", ollama)):
        word = marker().encode()
        # what looks like the field inside the file is none
        file = word + b'\r\nContent-Disposition: form-data; name="model"\r\n\r\nother\r\n' + b"RIFF" * 500_000
        for fields in ([("file", file), ("model", model)], [("model", model), ("file", file)]):
            seen = len(server.visits(word.decode()))
            answer = http.post("/v1/audio/translations", content=form(*fields), headers=headers)
            assert answer.json()["size"] == len(form(*fields))
            assert len(server.visits(word.decode())) == seen + 1


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("POST", "/api/show", {"model": "beta"}),
        ("POST", "/api/show", {"Name": "beta"}),
        ("POST", "/api/copy", {"source": "beta", "destination": "gamma"}),
        ("POST", "/api/pull", {"model": "never heard of"}),
        ("POST", "/api/create", {"model": "alpha", "from": "beta"}),
        ("DELETE", "/api/delete", {"model": "beta"}),
        ("GET", "/api/version", None),
        ("HEAD", "/", None),
    ],
)
def test_what_is_ollamas_goes_to_ollama(
    http: httpx.Client, ollama: ScriptedUpstream, method: str, path: str, body: object
) -> None:
    before = ollama.journal.visits(path)
    content = b"" if body is None else json.dumps(body).encode()
    assert http.request(method, path, content=content).status_code == 200
    assert [visit.method for visit in ollama.journal.visits(path)][len(before) :].count(method) >= 1


def test_no_server_answers_for_a_model_that_it_does_not_list(http: httpx.Client, llama: ScriptedUpstream) -> None:
    for path in ("/v1/chat/completions", "/v1/messages", "/v1/messages/count_tokens"):
        word = marker()
        answer = http.post(path, json={"model": "gamma", **CHAT, "user": word})
        assert answer.status_code == 404, answer.text
        assert not llama.visits(word)
    refusal = http.post("/v1/chat/completions", json={"model": "gamma", **CHAT}).json()
    assert refusal["error"]["code"] == "model_not_found"


def test_a_model_made_just_now_is_found(http: httpx.Client, ollama: ScriptedUpstream) -> None:
    having(ollama, "beta:latest", "delta:latest")
    word = marker()
    for _ in range(2):
        assert http.post("/v1/chat/completions", json={"model": "Delta", **CHAT, "seed": 1, "user": word}).is_success
    assert ollama.visits(word)
    having(ollama, "beta:latest")


def test_lists_are_unions(http: httpx.Client, llama: ScriptedUpstream) -> None:
    for path in ("/v1/models", "/models"):
        if path == "/models":
            llama.pages[path] = llama.pages["/v1/models"]
        document = http.get(path).json()
        assert "alpha" in [model["id"] for model in document["data"]]
        assert document["models"] == [{"name": "alpha"}], "what one of them says beside the list stays"
    assert [model["id"] for model in http.get("/v1/models").json()["data"]] == ["alpha", "beta:latest"]
    assert [model["name"] for model in http.get("/api/tags").json()["models"]] == ["beta:latest"]


def test_a_models_page_is_its_servers_or_is_made_of_the_list(http: httpx.Client) -> None:
    assert http.get("/v1/models/beta").json() == {"id": "beta", "object": "model", "by": "its page"}
    for name in ("alpha", "first"):
        assert http.get(f"/v1/models/{name}").json()["id"] == "alpha"
