"""Uploads byte by byte: what other clients send, what is refused, and what is left behind then: nothing."""

import gzip
import json
import time
from collections.abc import Iterator
from typing import Any

import psutil
import pytest

from tests.api.files.folder import kept, until_kept
from tests.conftest import MakeProxy, sound
from tests.scripted_upstream import ScriptedUpstream
from tests.server import Heard, Line, Proxy
from tests.timeouts import WAIT_SECONDS
from tests.wire.test_multipart import BAD, END, FILE, PURPOSE, TYPE, part

MiB = 1024 * 1024
FORM = ("content-type", TYPE)


@pytest.fixture(scope="module")
def own(upstream: ScriptedUpstream, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Proxy]:
    """A server of this module's that takes files of up to 2 MiB."""
    database = tmp_path_factory.mktemp("uploads") / "llmproxy.db"
    with Proxy(upstream.url, database=database, file_max_bytes=2 * MiB) as made:
        yield made
    sound(made)


@pytest.fixture
def before(own: Proxy) -> list[str]:
    """What the server keeps before the test. One that is refused changes nothing about it."""
    return kept(own)


@pytest.fixture
def line(own: Proxy) -> Iterator[Line]:
    with own.line() as connection:
        yield connection


def upload(line: Line, *parts: bytes, more: tuple[tuple[str, str], ...] = ()) -> Heard:
    return line.ask("POST", "/v1/files", [FORM, *more], b"".join(parts) + END)


def told(heard: Heard, status: int) -> dict[str, Any]:
    """The error, which must be OpenAI's envelope and nothing else."""
    assert heard.status == status, heard.body
    document = json.loads(heard.body)
    assert document.keys() == {"error"}
    error: dict[str, Any] = document["error"]
    assert error.keys() == {"message", "type", "param", "code"}
    return error


def head(length: int | None, more: bytes = b"") -> bytes:
    framing = b"transfer-encoding: chunked" if length is None else b"content-length: %d" % length
    lines = [b"POST /v1/files HTTP/1.1", b"host: 127.0.0.1", b"content-type: " + TYPE.encode(), framing]
    return b"\r\n".join(lines) + b"\r\n" + more + b"\r\n"


@pytest.mark.parametrize("parts", [(PURPOSE, FILE), (FILE, PURPOSE)], ids=["purpose first", "file first"])
def test_either_order(line: Line, parts: tuple[bytes, ...]) -> None:
    parts = tuple(each.replace(b"content\r\n", b'{"a": 1}\r\n') for each in parts)
    heard = upload(line, *parts, part("expires_after[anchor]", b"created_at"), part("expires_after[seconds]", b"7200"))
    file = json.loads(heard.body)
    assert heard.status == 200
    assert (file["bytes"], file["filename"], file["purpose"]) == (8, "in.jsonl", "batch")
    assert file["expires_at"] == file["created_at"] + 7200
    assert line.ask("GET", f"/v1/files/{file['id']}/content").body == b'{"a": 1}'


def test_byte_by_byte(own: Proxy) -> None:
    body = PURPOSE + part("file", b'{"a": 1}\r\n--boun', "in.jsonl") + END
    with own.line() as line:
        line.send(head(None, b"connection: close\r\n"))
        for at in range(len(body)):
            line.send(b"1\r\n" + body[at : at + 1] + b"\r\n")
        line.send(b"0\r\n\r\n")
        answer = line.rest()
    assert answer.startswith(b"HTTP/1.1 200")
    assert b'"bytes":16' in answer


def test_a_compressed_body(line: Line) -> None:
    body = gzip.compress(PURPOSE + part("file", b"{}\n", "in.jsonl") + END)
    assert line.ask("POST", "/v1/files", [FORM, ("content-encoding", "gzip")], body).status == 200
    told(line.ask("POST", "/v1/files", [FORM, ("content-encoding", "lzma")], body), 415)


@pytest.mark.parametrize("name", BAD)
def test_a_bad_body_is_a_400_and_leaves_nothing(own: Proxy, before: list[str], line: Line, name: str) -> None:
    told(line.ask("POST", "/v1/files", [FORM, ("content-length", str(len(BAD[name])))], BAD[name]), 400)
    assert kept(own) == before
    assert len(json.loads(line.ask("GET", "/v1/files").body)["data"]) == len(before)


@pytest.mark.parametrize("content_type", ["application/json", "multipart/form-data", "text/plain"])
def test_a_body_that_is_no_form_is_a_400(line: Line, content_type: str) -> None:
    told(line.ask("POST", "/v1/files", [("content-type", content_type)], b'{"purpose": "batch"}'), 400)


REFUSED = {
    "no file": ((PURPOSE,), "'file' is a required property", "file"),
    "no purpose": ((FILE,), "'purpose' is a required property", "purpose"),
    "bad purpose": ((part("purpose", b"fun"), FILE), "'fun' is not one of [", "purpose"),
    "output purpose": ((part("purpose", b"batch_output"), FILE), "'batch_output' is not one of [", "purpose"),
    "half a lifetime": (
        (PURPOSE, part("file", b"{}", "x"), part("expires_after[seconds]", b"3600")),
        "Missing required parameter: 'expires_after.anchor'.",
        "expires_after.anchor",
    ),
    "no jsonl": ((PURPOSE, FILE), "Invalid file format for Batch API. Must be .jsonl", None),
    "no jsonl, file first": ((FILE, PURPOSE), "Invalid file format for Batch API. Must be .jsonl", None),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_refused_leaves_nothing(own: Proxy, before: list[str], line: Line, name: str) -> None:
    parts, message, param = REFUSED[name]
    error = told(upload(line, *parts), 400)
    assert error["message"].startswith(message)
    assert error["param"] == param
    assert error["type"] == "invalid_request_error"
    assert kept(own) == before


def test_a_file_with_bad_lines_behind_a_good_one_is_accepted(line: Line) -> None:
    content = b'\n{"custom_id": "a"}\nnot json\n'
    assert upload(line, PURPOSE, part("file", content, "in.jsonl")).status == 200


def test_a_bad_idempotency_key_is_a_400(own: Proxy, before: list[str], line: Line) -> None:
    told(upload(line, PURPOSE, part("file", b"{}", "x"), more=(("idempotency-key", "k" * 256),)), 400)
    assert kept(own) == before


def test_a_file_as_large_as_may_be(line: Line) -> None:
    heard = upload(line, part("purpose", b"user_data"), part("file", b"x" * 2 * MiB, "x"))
    assert json.loads(heard.body)["bytes"] == 2 * MiB


def test_too_large_is_a_413_and_leaves_nothing(own: Proxy, before: list[str], line: Line) -> None:
    told(upload(line, part("file", b"x" * (2 * MiB + 1), "x"), part("purpose", b"user_data")), 413)
    assert kept(own) == before


@pytest.mark.parametrize("where", ["before", "behind"])
def test_a_form_that_is_large_without_its_file_is_a_413(own: Proxy, before: list[str], line: Line, where: str) -> None:
    filling = b"\r\n" * 4 * MiB
    body = PURPOSE + FILE + END
    body = filling + body if where == "before" else body + filling
    told(line.ask("POST", "/v1/files", [FORM], body), 413)
    assert kept(own) == before


def test_a_bomb_is_a_413(own: Proxy, before: list[str], line: Line) -> None:
    body = gzip.compress(part("file", b"\0" * 64 * MiB, "x") + END)
    told(line.ask("POST", "/v1/files", [FORM, ("content-encoding", "gzip")], body), 413)
    assert kept(own) == before


@pytest.mark.parametrize("sent", [0, 10, MiB, MiB + 50_000])
def test_a_client_that_leaves_midway_leaves_nothing(own: Proxy, before: list[str], sent: int) -> None:
    body = PURPOSE + part("file", b'{"a": 1}\n' * 200_000, "in.jsonl") + END
    with own.line() as line:
        line.send(head(len(body)))
        line.send(body[:sent])
        deadline = time.monotonic() + WAIT_SECONDS
        while kept(own) == before:
            assert time.monotonic() < deadline, "the upload does not begin"
            time.sleep(0.01)
    until_kept(own, before)
    with own.line() as line:
        assert len(json.loads(line.ask("GET", "/v1/files").body)["data"]) == len(before)
    assert '"status":500' not in own.log


def open_files(proxy: Proxy) -> list[str]:
    """The blobs that the server has in hand."""
    return [file.path for file in psutil.Process(proxy.process.pid).open_files() if "/files/" in file.path]


@pytest.mark.parametrize("method", ["PUT", "PATCH", "DELETE"])
def test_another_method_is_a_405_that_names_all_there_are(line: Line, method: str) -> None:
    heard = line.ask(method, "/v1/files")
    told(heard, 405)
    assert heard.all("allow") == ["GET, HEAD, POST"]


def test_the_head_of_a_content(line: Line) -> None:
    file = json.loads(upload(line, PURPOSE, part("file", b"{}\n" * 100, "in.jsonl")).body)
    with line:
        line.send(
            f"HEAD /v1/files/{file['id']}/content HTTP/1.1\r\nhost: 127.0.0.1\r\nconnection: close\r\n\r\n".encode()
        )
        answer, _, rest = line.rest().partition(b"\r\n\r\n")
    assert b"content-length: 300" in answer
    assert rest == b""


def test_two_hundred_megabytes_at_constant_memory(proxy: MakeProxy, upstream: ScriptedUpstream) -> None:
    own = proxy(upstream.url)
    piece, times = b'{"a": "%b"}\n' % (b"x" * (MiB - 10)), 200
    start, behind = PURPOSE + part("file", b"", "in.jsonl").removesuffix(b"\r\n"), b"\r\n" + END
    with own.line() as line:
        upload(line, PURPOSE, part("file", b"{}", "x"))
        calm = own.resident
        size = len(piece) * times
        line.send(head(len(start) + size + len(behind), b"connection: close\r\n"))
        line.send(start)
        most = 0
        for _ in range(times):
            line.send(piece)
            most = max(most, own.resident)
        line.send(behind)
        file = json.loads(line.rest().partition(b"\r\n\r\n")[2])
    assert file["bytes"] == size
    with own.line() as line:
        line.request("GET", f"/v1/files/{file['id']}/content")
        line.head()
        read = 0
        for data in iter(line.data, None):
            read += len(data)
            if read % 64 == 0:
                most = max(most, own.resident)
    assert read == size
    assert most - calm < 32 * MiB
    with own.line() as leaving:
        leaving.request("GET", f"/v1/files/{file['id']}/content")
        assert leaving.head().status_code == 200
        assert open_files(own), "it is far from being sent"
    deadline = time.monotonic() + WAIT_SECONDS
    while open_files(own):
        assert time.monotonic() < deadline, "it is still read for nobody"
        time.sleep(0.01)
