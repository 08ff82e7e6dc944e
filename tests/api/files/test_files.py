"""Files through the official client."""

import asyncio
import hashlib
import time
from collections.abc import Iterator
from pathlib import Path

import openai
import pytest
from openai.types import FileObject

from tests.api.files.folder import blob, kept
from tests.conftest import MakeProxy
from tests.scripted_upstream import ScriptedUpstream
from tests.server import Proxy

DAY = 86_400


def client_of(proxy: Proxy, key: str = "none", base: str = "/v1") -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{proxy.url}{base}", api_key=key, max_retries=0)


@pytest.fixture
def client(front: Proxy) -> Iterator[openai.OpenAI]:
    with client_of(front) as made:
        yield made


def put(client: openai.OpenAI, content: bytes = b'{"a": 1}\n', name: str = "in.jsonl") -> FileObject:
    return client.files.create(file=(name, content), purpose="batch")


def test_a_file_from_a_path(client: openai.OpenAI, tmp_path: Path) -> None:
    (tmp_path / "naïve 日本.jsonl").write_bytes(b'{"a": 1}\n{"b": 2}\n')
    before = int(time.time())
    file = client.files.create(file=tmp_path / "naïve 日本.jsonl", purpose="batch")
    assert file.model_dump(exclude={"id", "created_at", "expires_at"}) == {
        "object": "file",
        "bytes": 18,
        "filename": "naïve 日本.jsonl",
        "purpose": "batch",
        "status": "processed",
        "status_details": None,
    }
    assert file.id.startswith("file-")
    assert before <= file.created_at <= time.time()
    assert file.expires_at == file.created_at + 30 * DAY
    assert client.files.retrieve(file.id) == file
    assert client.files.content(file.id).read() == b'{"a": 1}\n{"b": 2}\n'


def test_a_file_from_bytes(client: openai.OpenAI, front: Proxy) -> None:
    content = bytes(range(256)) * 4096
    file = client.files.create(file=content, purpose="user_data")
    assert (file.bytes, file.expires_at) == (len(content), None)
    answer = client.files.content(file.id)
    assert answer.read() == content
    assert answer.response.headers["content-type"] == "application/octet-stream"
    assert answer.response.headers["content-length"] == str(len(content))
    assert hashlib.sha256(blob(front, file.id).read_bytes()).digest() == hashlib.sha256(content).digest()


def test_an_empty_file(client: openai.OpenAI) -> None:
    file = client.files.create(file=("empty.txt", b""), purpose="assistants")
    assert file.bytes == 0
    assert client.files.content(file.id).read() == b""


def test_a_file_with_a_lifetime(client: openai.OpenAI) -> None:
    file = client.files.create(
        file=("x.txt", b"x"), purpose="vision", expires_after={"anchor": "created_at", "seconds": 3600}
    )
    assert file.expires_at == file.created_at + 3600


def test_a_bad_lifetime(client: openai.OpenAI) -> None:
    with pytest.raises(openai.BadRequestError) as told:
        client.files.create(
            file=("x.txt", b"x"), purpose="vision", expires_after={"anchor": "created_at", "seconds": 60}
        )
    assert told.value.param == "expires_after.seconds"


def test_deleted_is_gone(client: openai.OpenAI, front: Proxy) -> None:
    file = put(client)
    assert client.files.delete(file.id).model_dump() == {"id": file.id, "object": "file", "deleted": True}
    assert not blob(front, file.id).exists()
    for work in (client.files.retrieve, client.files.content, client.files.delete):
        with pytest.raises(openai.NotFoundError) as told:
            work(file.id)
        assert told.value.body == {
            "message": f"No such File object: {file.id}",
            "type": "invalid_request_error",
            "param": "id",
            "code": None,
        }


@pytest.mark.parametrize("id", ["file-unknown", "x", "file-%00", "file-é", "file-" + "x" * 1000, "batch_1", "%2e%2e"])
def test_what_is_no_file_is_not_found(client: openai.OpenAI, id: str) -> None:
    for work in (client.files.retrieve, client.files.content, client.files.delete):
        with pytest.raises(openai.NotFoundError, match="No such File object") as told:
            work(id)
        assert len(told.value.message) < 300


def test_a_file_whose_bytes_are_gone(client: openai.OpenAI, front: Proxy) -> None:
    file = put(client)
    blob(front, file.id).unlink()
    with pytest.raises(openai.NotFoundError, match="not there any more"):
        client.files.content(file.id)
    assert client.files.delete(file.id).deleted


def test_the_list_page_by_page(proxy: MakeProxy, upstream: ScriptedUpstream) -> None:
    made = proxy(upstream.url)
    with client_of(made) as client:
        assert client.files.list().data == []
        files = [put(client, name=f"{number}.jsonl") for number in range(5)]
        other = client.files.create(file=b"x", purpose="evals")
        page = client.files.list(limit=2)
        assert (page.data, page.has_more) == ([other, files[4]], True)
        assert page.model_dump()["first_id"] == other.id
        assert page.model_dump()["last_id"] == files[4].id
        for limit in (1, 2, 5, 10_000):
            assert list(client.files.list(limit=limit)) == [other, *reversed(files)]
            assert list(client.files.list(limit=limit, order="asc", purpose="batch")) == files
        assert list(client.files.list(purpose="batch_output")) == []
        assert list(client.files.list(after="file-unknown")) == []
        with pytest.raises(openai.BadRequestError):
            client.files.list(limit=0)


def test_the_same_idempotency_key_gives_the_first_file(proxy: MakeProxy, upstream: ScriptedUpstream) -> None:
    made = proxy(upstream.url)
    with client_of(made) as client:
        again = {"Idempotency-Key": "once"}
        first = client.files.create(file=b"first", purpose="user_data", extra_headers=again)
        assert client.files.create(file=b"second", purpose="user_data", extra_headers=again) == first
        assert client.files.content(first.id).read() == b"first"
        assert list(client.files.list()) == [first]
    assert kept(made) == [first.id]


def test_callers_see_their_own_files(proxy: MakeProxy, upstream: ScriptedUpstream) -> None:
    made = proxy(upstream.url, api_keys="ann:one,bob:two")
    with client_of(made, "one") as ann, client_of(made, "two") as bob, client_of(made, "three") as nobody:
        file = ann.files.create(file=b"secret", purpose="user_data", extra_headers={"Idempotency-Key": "k"})
        for work in (bob.files.retrieve, bob.files.content, bob.files.delete):
            with pytest.raises(openai.NotFoundError):
                work(file.id)
        assert list(bob.files.list()) == []
        other = bob.files.create(file=b"other", purpose="user_data", extra_headers={"Idempotency-Key": "k"})
        assert list(bob.files.list()) == [other]
        assert list(ann.files.list()) == [file]
        with pytest.raises(openai.AuthenticationError):
            nobody.files.create(file=b"x", purpose="user_data")


def test_a_crash_keeps_files(proxy: MakeProxy, upstream: ScriptedUpstream) -> None:
    made = proxy(upstream.url)
    with client_of(made) as client:
        file = put(client, b'{"a": 1}\n' * 100_000)
    made.kill()
    made.start()
    with client_of(made) as client:
        assert client.files.retrieve(file.id) == file
        assert client.files.content(file.id).read() == b'{"a": 1}\n' * 100_000


def test_the_bare_form(front: Proxy) -> None:
    with client_of(front, base="") as client:
        file = put(client)
        assert client.files.retrieve(file.id) == file
        assert client.files.content(file.id).read() == b'{"a": 1}\n'
        assert file in client.files.list().data
        assert client.files.delete(file.id).deleted


def test_files_at_a_url(proxy: MakeProxy, upstream: ScriptedUpstream, tmp_path: Path) -> None:
    made = proxy(upstream.url, files_path=f"file://{tmp_path}/far")
    with client_of(made) as client:
        file = put(client)
        assert (tmp_path / "far" / file.id).read_bytes() == b'{"a": 1}\n'
        assert client.files.content(file.id).read() == b'{"a": 1}\n'
        client.files.delete(file.id)
    assert list((tmp_path / "far").iterdir()) == []


def test_a_place_that_cannot_be_used_stops_the_start(upstream: ScriptedUpstream, tmp_path: Path) -> None:
    made = Proxy(upstream.url, database=tmp_path / "llmproxy.db", files_path="nothing://user:secret@bucket")
    with pytest.raises(RuntimeError, match="LLMPROXY_FILES_PATH: files cannot be kept at nothing://"):
        made.start()
    assert "Traceback" not in made.log
    assert "secret" not in made.log


def test_without_jobs_files_are_the_upstreams_affair(proxy: MakeProxy, upstream: ScriptedUpstream) -> None:
    made = proxy(upstream.url, jobs="false")
    with made.line() as line:
        line.ask("GET", "/v1/files/file-of-the-upstream")
    assert upstream.visits("file-of-the-upstream")


async def test_many_uploads_at_once(front: Proxy) -> None:
    async with openai.AsyncOpenAI(base_url=f"{front.url}/v1", api_key="none", max_retries=0) as client:
        contents = [bytes([number]) * 300_000 for number in range(24)]
        files = await asyncio.gather(*(client.files.create(file=each, purpose="user_data") for each in contents))
        read = await asyncio.gather(*(client.files.content(file.id) for file in files))
        assert [answer.read() for answer in read] == contents
