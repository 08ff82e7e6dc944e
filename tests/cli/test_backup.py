"""``llmproxy db backup`` and ``restore``: while a proxy is at work, and with what is no backup."""

import contextlib
import sqlite3
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.cli.program import Program
from tests.conftest import MakeProxy
from tests.databases import PostgresServer
from tests.scripted import CHAT, marker
from tests.scripted_upstream import ScriptedUpstream
from tests.server import Proxy
from tests.timeouts import WAIT_SECONDS


def client(proxy: Proxy) -> httpx.Client:
    return httpx.Client(base_url=proxy.url, trust_env=False, timeout=WAIT_SECONDS)


def cache_of(http: httpx.Client, prompt: str) -> str:
    answer = http.post(CHAT.path, json=CHAT.request(prompt))
    assert answer.status_code == 200
    return str(answer.headers["x-cache"])


def until_stored(http: httpx.Client, count: int) -> None:
    """Waits until so many entries are in the database."""
    deadline = time.monotonic() + WAIT_SECONDS
    while http.get("/api/cache/stats").json()["tiers"]["sql"]["entries"] < count:
        assert time.monotonic() < deadline
        time.sleep(0.02)


@contextlib.contextmanager
def load(proxy: Proxy) -> Iterator[None]:
    """Fresh requests, one after the other, each with an entry and a row to be written, until the end."""
    ended, failures = threading.Event(), []

    def work() -> None:
        with client(proxy) as http:
            while not ended.is_set():
                answer = http.post(CHAT.path, json=CHAT.request(f"{marker()} [script:size=20000]"))
                if answer.status_code != 200:
                    failures.append(answer.status_code)

    workers = [threading.Thread(target=work) for _ in range(2)]
    for each in workers:
        each.start()
    try:
        yield
    finally:
        ended.set()
        for each in workers:
            each.join(WAIT_SECONDS)
    assert failures == []


def sound(file: Path) -> bool:
    with contextlib.closing(sqlite3.connect(f"{file.as_uri()}?mode=ro", uri=True)) as connection:
        return connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]


def test_a_backup_under_load_is_whole_and_can_be_restored(
    llmproxy: Program, upstream: ScriptedUpstream, proxy: MakeProxy, tmp_path: Path
) -> None:
    own, before, after, file = proxy(upstream.url), marker(), marker(), tmp_path / "backup.db"
    where = ("--database", str(own.database))
    with client(own) as http:
        assert cache_of(http, before) == "MISS"
        until_stored(http, 1)
        with load(own):
            until_stored(http, 20)
            for flags in ([], ["--force"], ["--force"]):
                done = llmproxy("db", "backup", str(file), *where, *flags)
                assert (done.code, done.err) == (0, "")
                assert done.out.startswith(f"{file}: ")
            # in use: refused, and nothing happens to the proxy
            refused = llmproxy("db", "restore", str(file), "--yes", *where)
            assert refused.code == 1
            assert "is in use: stop `llmproxy serve` and its workers first" in refused.err
        assert cache_of(http, after) == "MISS"
    own.stop()
    assert sound(file)
    assert file.stat().st_mode & 0o077 == 0
    assert sorted(path.name for path in tmp_path.glob("backup*")) == ["backup.db"]
    restored = llmproxy("db", "restore", str(file), "--yes", *where)
    assert restored.code == 0, restored.err
    assert "llmproxy.db.before-restore" in restored.out
    own.start()
    with client(own) as http:
        assert cache_of(http, before) == "HIT"
        assert cache_of(http, after) == "MISS", "what came after the backup is not in it"
    own.stop()
    # the earlier one is still there, with all that was in it
    earlier = own.database.with_name("llmproxy.db.before-restore")
    assert sound(earlier)
    assert llmproxy("db", "restore", str(earlier), "--yes", *where).code == 0
    own.start()
    with client(own) as http:
        assert cache_of(http, after) == "HIT"


def test_a_postgresql_database_is_dumped_under_load_and_restored(
    llmproxy: Program, upstream: ScriptedUpstream, proxy: MakeProxy, postgres: PostgresServer, tmp_path: Path
) -> None:
    url, before, after, file = postgres.create(), marker(), marker(), tmp_path / "backup.dump"
    own = proxy(upstream.url, database_url=url)
    with client(own) as http:
        assert cache_of(http, before) == "MISS"
        until_stored(http, 1)
        with load(own):
            until_stored(http, 20)
            done = llmproxy("db", "backup", str(file), "--database", url)
            assert done.code == 0, done.err
            assert done.err.startswith("pg_dump --format=custom")
        assert cache_of(http, after) == "MISS"
    own.stop()
    restored = llmproxy("db", "restore", str(file), "--yes", "--database", url)
    assert restored.code == 0, restored.err
    own.start()
    with client(own) as http:
        assert cache_of(http, before) == "HIT"
        assert cache_of(http, after) == "MISS"


def test_without_pg_dump_the_command_is_said_without_the_password(
    llmproxy: Program, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", "")
    done = llmproxy("db", "backup", "x.dump", "--database", "postgresql://me:s3cret@host/name?ssl=require")
    assert done.code == 1
    command = "pg_dump --format=custom --no-owner '--dbname=postgresql://me@host/name?sslmode=require' --file=x.dump"
    assert f"pg_dump is not installed here; where it is, run: {command}" in done.err
    assert "s3cret" not in done.err


def make(file: Path, *statements: str) -> None:
    with contextlib.closing(sqlite3.connect(file, isolation_level=None)) as connection:
        for statement in statements:
            connection.execute(statement)


def test_what_is_no_backup_is_refused_and_nothing_is_touched(llmproxy: Program, tmp_path: Path) -> None:
    assert llmproxy("db", "upgrade", "--database", "x.db").code == 0
    before = Path("x.db").read_bytes()
    Path("text").write_text("no database " * 1000)
    make(Path("other.db"), "CREATE TABLE t (a)")
    make(Path("newer.db"), "CREATE TABLE alembic_version (version_num)", "INSERT INTO alembic_version VALUES ('9999')")
    for name, reason in (
        ("text", "text is no backup of an llmproxy database: file is not a database"),
        ("other.db", "other.db is no backup of an llmproxy database: no such table: alembic_version"),
        ("newer.db", "this database is from a newer llmproxy"),
        ("nothing", "there is no file nothing"),
    ):
        refused = llmproxy("db", "restore", name, "--yes", "--database", "x.db")
        assert refused.code == 1
        assert reason in refused.err
        assert len(refused.err.splitlines()) == 1
    assert Path("x.db").read_bytes() == before


def test_a_file_that_exists_is_not_replaced_unasked(llmproxy: Program, tmp_path: Path) -> None:
    assert llmproxy("db", "upgrade", "--database", "x.db").code == 0
    Path("backup.db").write_text("precious")
    refused = llmproxy("db", "backup", "backup.db", "--database", "x.db")
    assert (refused.code, refused.err) == (1, "llmproxy: backup.db exists: choose another name, or --force\n")
    assert Path("backup.db").read_text() == "precious"


def test_nothing_to_back_up_is_one_line_and_no_file(llmproxy: Program, tmp_path: Path) -> None:
    refused = llmproxy("db", "backup", "backup.db", "--database", "x.db")
    assert (refused.code, refused.err) == (1, "llmproxy: there is no database at x.db\n")
    assert not Path("backup.db").exists()


def test_a_damaged_database_can_be_restored(llmproxy: Program, tmp_path: Path) -> None:
    assert llmproxy("db", "upgrade", "--database", "x.db").code == 0
    assert llmproxy("db", "backup", "backup.db", "--database", "x.db").code == 0
    Path("x.db").write_text("no database any more" * 1000)
    assert llmproxy("db", "restore", "backup.db", "--yes", "--database", "x.db").code == 0
    assert llmproxy("db", "check", "--database", "x.db").code == 0
