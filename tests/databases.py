"""Databases for tests: SQLite in a temporary folder, and a PostgreSQL server of their own.

Import the fixtures in a folder's ``conftest.py``.
"""

import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import AsyncIterator, Iterator
from itertools import count
from pathlib import Path

import psutil
import pytest

from llmproxy.cache import tables as cache_tables
from llmproxy.database.engine import Database, open_database
from llmproxy.history import rollup_tables
from llmproxy.history import tables as history_tables
from llmproxy.jobs import tables as job_tables
from llmproxy.upstream import tables as upstream_tables

#: importing them is what declares the tables
DECLARING = (cache_tables, history_tables, rollup_tables, job_tables, upstream_tables)


class PostgresServer:
    """A server on a socket in its own folder, as fast as one that may lose everything."""

    def __init__(self, programs: Path):
        self._programs = programs
        self._folder = Path(tempfile.mkdtemp(prefix="llmproxy-postgres-"))
        self._numbers = count(1)
        # PostgreSQL refuses to run as root
        self._user = "postgres" if os.getuid() == 0 else None
        if self._user is not None:
            account = pwd.getpwnam(self._user)
            os.chown(self._folder, account.pw_uid, account.pw_gid)
        self._run("initdb", "-D", self._data, "-U", "llmproxy", "-A", "trust", "--no-sync")

    @property
    def _data(self) -> str:
        return str(self._folder / "data")

    def start(self) -> None:
        options = f"-k {self._folder} -c listen_addresses= -c fsync=off -c shared_buffers=16MB -c max_connections=60"
        self._run("pg_ctl", "-D", self._data, "-w", "-l", str(self._folder / "log"), "-o", options, "start")

    def stop(self) -> None:
        """At once, as in a crash."""
        self._run("pg_ctl", "-D", self._data, "-w", "-m", "immediate", "stop")

    def processes(self) -> list[psutil.Process]:
        """Those that are running."""
        main = psutil.Process(int((Path(self._data) / "postmaster.pid").read_text().split()[0]))
        return [main, *main.children(recursive=True)]

    def remove(self) -> None:
        self.stop()
        shutil.rmtree(self._folder)

    def create(self) -> str:
        """The URL of a new, empty database."""
        name = f"test{next(self._numbers)}"
        self._run("createdb", "-h", str(self._folder), "-U", "llmproxy", name)
        return f"postgresql+asyncpg://llmproxy@/{name}?host={self._folder}"

    def _run(self, program: str, *arguments: str) -> None:
        subprocess.run(
            [str(self._programs / program), *arguments],
            check=True,
            user=self._user,
            cwd="/",
            # not pipes: a server that pg_ctl starts would keep them open
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            timeout=60,
        )


def postgres_programs() -> Path | None:
    """The folder of PostgreSQL's programs."""
    for folder in sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True):
        if (folder / "pg_ctl").exists():
            return folder
    found = shutil.which("pg_ctl")
    return Path(found).resolve().parent if found else None


@pytest.fixture(scope="session")
def postgres() -> Iterator[PostgresServer]:
    programs = postgres_programs()
    if programs is None:
        if os.environ.get("CI"):
            pytest.fail("PostgreSQL is not installed, and here it must be")
        pytest.skip("PostgreSQL is not installed")
    server = PostgresServer(programs)
    server.start()
    yield server
    server.remove()


@pytest.fixture
def sqlite_file(tmp_path: Path) -> Path:
    return tmp_path / "data" / "llmproxy.db"


@pytest.fixture(params=["sqlite", "postgresql"])
def database_url(request: pytest.FixtureRequest, sqlite_file: Path) -> str:
    """The URL of an empty database, of each kind."""
    if request.param == "sqlite":
        return sqlite_url(sqlite_file)
    server: PostgresServer = request.getfixturevalue("postgres")
    return server.create()


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    """An open database with its schema, of each kind."""
    async with open_database(database_url) as database:
        await database.verify()
        yield database


@pytest.fixture
async def sqlite(sqlite_file: Path) -> AsyncIterator[Database]:
    """An open SQLite database with its schema, in ``sqlite_file``."""
    async with open_database(sqlite_url(sqlite_file)) as database:
        await database.verify()
        yield database


def sqlite_url(file: Path) -> str:
    return f"sqlite+aiosqlite:///{file}"


def remove_sqlite(file: Path, *, beside: bool = True) -> None:
    """Deletes a SQLite file, with the log and index that lie beside it or without."""
    for suffix in ("", "-wal", "-shm") if beside else ("",):
        Path(f"{file}{suffix}").unlink(missing_ok=True)


def ruin_sqlite(file: Path) -> None:
    """Puts something else in the place of a SQLite file."""
    remove_sqlite(file)
    file.write_bytes(b"this is no database, whatever its name says" * 500)
