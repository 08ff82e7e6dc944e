"""The database away, broken or killed, and the model server gone: what is cached is served, the rest goes on."""

import asyncio
import contextlib
import json
import os
import re
import shutil
import sqlite3
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest
from sqlalchemy import make_url

from tests.conftest import MakeProxy
from tests.databases import PostgresServer
from tests.faults.outcome import ask
from tests.scripted import CHAT, COMPLETIONS, OLLAMA_CHAT, RESPONSES, marker
from tests.scripted_upstream import ScriptedUpstream
from tests.server import Proxy
from tests.timeouts import WAIT_SECONDS

ENDPOINTS = (CHAT, COMPLETIONS, RESPONSES, OLLAMA_CHAT)


def client(proxy: Proxy) -> httpx.AsyncClient:
    return httpx.AsyncClient(base_url=proxy.url, timeout=60, trust_env=False)


async def test_a_restart_with_no_model_server_still_hits(proxy: MakeProxy) -> None:
    with ScriptedUpstream("llamacpp") as upstream:
        own = proxy(upstream.url)
        prompt = marker()
        requests = [(e, e.request(prompt, stream=stream)) for e in ENDPOINTS for stream in (False, True)]
        async with client(own) as http:
            first = [await ask(http, endpoint, request) for endpoint, request in requests]
        own.stop()
        upstream.down()
        own.start()
        async with client(own) as http:
            again = [await ask(http, endpoint, request) for endpoint, request in requests]
            cold = await ask(http, CHAT, CHAT.request(marker()))
    assert {outcome.cache for outcome in again} == {"HIT"}
    assert [outcome.body for outcome in again] == [outcome.body for outcome in first]
    assert cold.status == 502


async def test_kill_in_the_middle_of_writes(upstream: ScriptedUpstream, proxy: MakeProxy) -> None:
    """After SIGKILL the file is sound, and every entry that is there is whole."""
    own = proxy(upstream.url)
    word = marker()
    requests = [CHAT.request(f"{word} {number} [script:size=20000]", stream=True) for number in range(200)]
    async with client(own) as http:
        first = [asyncio.create_task(ask(http, CHAT, request)) for request in requests]
        await upstream.journal.reached(word, 120)
        own.kill()
        done = await asyncio.gather(*first, return_exceptions=True)
    bodies = [outcome.body if not isinstance(outcome, BaseException) else b"" for outcome in done]
    with contextlib.closing(sqlite3.connect(own.database)) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    own.start()
    async with client(own) as http:
        for request, body in zip(requests, bodies, strict=True):
            outcome = await ask(http, CHAT, request)
            assert outcome.status == 200
            assert outcome.body.endswith(b"data: [DONE]\n\n")
            if outcome.cache == "HIT" and body.endswith(b"data: [DONE]\n\n"):
                assert outcome.body == body


async def test_a_database_locked_by_another_process_delays_nobody(upstream: ScriptedUpstream, proxy: MakeProxy) -> None:
    own = proxy(upstream.url)
    prompt = marker()
    async with client(own) as http:
        assert (await ask(http, CHAT, CHAT.request(prompt))).cache == "MISS"
        with contextlib.closing(sqlite3.connect(own.database, isolation_level=None)) as connection:
            connection.execute("BEGIN EXCLUSIVE")
            for _ in range(3):
                assert (await ask(http, CHAT, CHAT.request(marker()))).status == 200
            assert (await ask(http, CHAT, CHAT.request(prompt))).cache == "HIT"
            connection.execute("ROLLBACK")
        assert (await ask(http, CHAT, CHAT.request(marker()))).status == 200


async def test_a_database_deleted_while_running_stops_nothing(upstream: ScriptedUpstream, proxy: MakeProxy) -> None:
    own = proxy(upstream.url)
    async with client(own) as http:
        prompt = marker()
        assert (await ask(http, CHAT, CHAT.request(prompt))).cache == "MISS"
        remove(own.database)
        assert (await ask(http, CHAT, CHAT.request(prompt))).cache == "HIT"
        for _ in range(3):
            fresh = marker()
            assert (await ask(http, CHAT, CHAT.request(fresh))).cache == "MISS"
            assert (await ask(http, CHAT, CHAT.request(fresh))).cache == "HIT"


def cut(path: Path, size: int) -> None:
    if path.exists():
        os.truncate(path, size)


def replaced(path: Path) -> None:
    """In place: the same file with other contents, as ``cp`` leaves it."""
    path.write_bytes(b"no database " * 10_000)


def moved(path: Path) -> None:
    path.parent.rename(path.parent.with_name("moved"))


DAMAGES: dict[str, Callable[[Path], None]] = {
    "emptied": lambda path: cut(path, 0),
    "cut to a page": lambda path: cut(path, 8192),
    "cut in the middle of a page": lambda path: cut(path, path.stat().st_size // 2 + 100),
    "overwritten": replaced,
    "its log emptied": lambda path: cut(path.with_name(path.name + "-wal"), 0),
    "its log deleted": lambda path: path.with_name(path.name + "-wal").unlink(missing_ok=True),
    "its index deleted": lambda path: path.with_name(path.name + "-shm").unlink(missing_ok=True),
    "its folder gone": lambda path: shutil.rmtree(path.parent),
    "its folder moved": moved,
}


@pytest.mark.parametrize("damage", DAMAGES)
async def test_a_damaged_database_stops_nothing(upstream: ScriptedUpstream, tmp_path: Path, damage: str) -> None:
    """Whatever is done to the file while it is open: hits from memory, answers and the pages that read it go on."""
    folder = tmp_path / "data"
    folder.mkdir()
    with Proxy(upstream.url, database=folder / "llmproxy.db", cache_sweep_seconds=0.1) as own:
        old = [f"{marker()} [script:size=4000]" for _ in range(30)]
        async with client(own) as http:
            for prompt in old:
                assert (await ask(http, CHAT, CHAT.request(prompt))).cache == "MISS"
            await http.get("/api/history?limit=5")
            DAMAGES[damage](own.database)
            for prompt in old[:10]:
                assert (await ask(http, CHAT, CHAT.request(prompt))).cache == "HIT"
                assert (await ask(http, CHAT, CHAT.request(marker()))).status == 200
                for path in ("/api/history?limit=5", "/admin/cache/groups", "/api/cache/stats"):
                    assert (await http.get(path)).status_code in (200, 503)
            assert (await http.get("/v1/uploads")).status_code == 200
        assert own.process.poll() is None
    assert "Traceback" not in own.log


async def test_an_emptied_database_is_made_anew(upstream: ScriptedUpstream, proxy: MakeProxy) -> None:
    own = proxy(upstream.url)
    async with client(own) as http:
        await ask(http, CHAT, CHAT.request(marker()))
        os.truncate(own.database, 0)
        prompt = marker()
        await ask(http, CHAT, CHAT.request(prompt))
        async with asyncio.timeout(WAIT_SECONDS):
            while not (await http.get("/api/history?limit=1")).json().get("data"):
                await ask(http, CHAT, CHAT.request(marker()))
    own.stop()
    with contextlib.closing(sqlite3.connect(own.database)) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    assert own.log.count("the database file was gone or replaced") == 1


def remove(database: Path) -> None:
    for suffix in ("", "-wal", "-shm"):
        Path(f"{database}{suffix}").unlink(missing_ok=True)


async def test_another_model_under_the_same_name_misses_and_the_first_one_hits_again(proxy: MakeProxy) -> None:
    with ScriptedUpstream("llamacpp", weights="first") as upstream:
        own = proxy(upstream.url, identity_seconds=0.05)
        request = CHAT.request(marker())
        async with client(own) as http:
            first = await ask(http, CHAT, request)
            # until it is confirmed and kept
            assert (await ask(http, CHAT, request)).cache == "HIT"
            upstream.weights = "second"
            await http.get("/v1/models")
            second = await ask(http, CHAT, request)
            upstream.weights = "first"
            await http.get("/v1/models")
            third = await ask(http, CHAT, request)
    assert [first.cache, second.cache, third.cache] == ["MISS", "MISS", "HIT"]
    assert third.body == first.body != second.body


def warnings(proxy: Proxy) -> list[str]:
    """What it logged that is more than information, but for requests that failed."""
    lines = [json.loads(line) for line in proxy.log.splitlines()]
    return [line["message"] for line in lines if line["level"] != "info" and line["logger"] != "llmproxy.access"]


async def use_everything(proxy: Proxy) -> None:
    """Has every part of the program meet the database."""
    async with client(proxy) as http:
        for _ in range(3):
            assert (await ask(http, CHAT, CHAT.request(marker()))).status == 200
        for path in ("/api/history?limit=1", "/api/users", "/admin/cache/groups", "/api/tasks"):
            assert (await http.get(path)).status_code == 503, path
        assert (await http.get("/api/health")).json()["database"]["state"] == "down"
        assert (await http.post("/api/completions", json={"prompt": "x", "background": True})).status_code == 503


@pytest.mark.parametrize(
    ("prepare", "cause"),
    [
        (lambda path: path.write_bytes(b"no database " * 1000), "file is not a database, SQLITE_NOTADB"),
        (lambda path: path.mkdir(), "[Errno 21] Is a directory"),
    ],
    ids=["no database", "a folder"],
)
async def test_a_file_that_cannot_be_opened_is_one_warning_with_the_cause(
    upstream: ScriptedUpstream, tmp_path: Path, prepare: Callable[[Path], object], cause: str
) -> None:
    prepare(tmp_path / "llmproxy.db")
    with Proxy(upstream.url, database=tmp_path / "llmproxy.db") as own:
        await use_everything(own)
        (warning,) = warnings(own)
    assert f"the database {own.database} cannot be opened" in warning
    assert cause in warning


@pytest.mark.parametrize(
    ("url", "cause"),
    [
        ("postgresql://me:s3cret@127.0.0.1:1/x", "Connect call failed|Connection refused"),
        ("postgresql://stranger@/{name}?host={folder}", 'role "stranger" does not exist'),
        ("postgresql://llmproxy@/nobodys?host={folder}", 'database "nobodys" does not exist'),
    ],
    ids=["refused", "unknown user", "unknown database"],
)
async def test_a_server_that_does_not_let_us_in_is_one_warning_with_the_cause(
    upstream: ScriptedUpstream, proxy: MakeProxy, postgres: PostgresServer, url: str, cause: str
) -> None:
    existing = make_url(postgres.create_empty())
    own = proxy(upstream.url, database_url=url.format(name=existing.database, folder=existing.query["host"]))
    await use_everything(own)
    (warning,) = warnings(own)
    assert "cannot be opened" in warning
    assert re.search(cause, warning)
    assert "s3cret" not in own.log


async def test_an_outage_is_one_warning_and_its_end_another(upstream: ScriptedUpstream, tmp_path: Path) -> None:
    file = tmp_path / "llmproxy.db"
    with Proxy(upstream.url, database=file, cache_sweep_seconds=0.1) as own:
        async with client(own) as http:
            await ask(http, CHAT, CHAT.request(marker()))
            # a folder in its place: nothing can be read, written or made anew
            remove(file)
            file.mkdir()
            async with asyncio.timeout(WAIT_SECONDS):
                while not warnings(own):
                    assert (await ask(http, CHAT, CHAT.request(marker()))).status == 200
            await use_everything(own)
            file.rmdir()
            async with asyncio.timeout(WAIT_SECONDS):
                while not any("works again" in each for each in warnings(own)):
                    await ask(http, CHAT, CHAT.request(marker()))
        first, *others = warnings(own)
    assert first.startswith(f"the database {file} cannot be ")
    assert not [each for each in others if "fail" in each or "cannot" in each], others


def test_a_database_of_a_newer_version_ends_the_start_with_the_cause(
    upstream: ScriptedUpstream, tmp_path: Path
) -> None:
    own = Proxy(upstream.url, database=tmp_path / "llmproxy.db")
    own.start()
    own.stop()
    with contextlib.closing(sqlite3.connect(own.database, isolation_level=None)) as connection:
        connection.execute("UPDATE alembic_version SET version_num = '9999'")
    with pytest.raises(RuntimeError, match="this database is from a newer llmproxy"):
        own.start()
    own.stop()
