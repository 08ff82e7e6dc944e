"""Databases for tests: SQLite in a temporary folder, and a PostgreSQL server of their own.

The schema is made once for each kind of database and copied for each test.
Import the fixtures in a folder's ``conftest.py``.
"""

import asyncio
import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from itertools import count
from pathlib import Path

import psutil
import pytest

from llmproxy.cache import tables as cache_tables
from llmproxy.database.engine import Database, open_database
from llmproxy.history import rollups
from llmproxy.history import tables as history_tables
from llmproxy.jobs import tables as job_tables
from llmproxy.upstream import tables as upstream_tables

#: importing them is what declares the tables
DECLARING = (cache_tables, history_tables, rollups, job_tables, upstream_tables)


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
        """The URL of a new database with the schema and no rows."""
        return self._url(self._create(self._template))

    def create_empty(self) -> str:
        """The URL of a new, empty database."""
        return self._url(self._create("template1"))

    @cached_property
    def _template(self) -> str:
        """The name of the database that is copied."""
        name = self._create("template1")
        make_schema(self._url(name))
        return name

    def _create(self, template: str) -> str:
        name = f"test{next(self._numbers)}"
        self._run("createdb", "-h", str(self._folder), "-U", "llmproxy", "-T", template, name)
        return name

    def _url(self, name: str) -> str:
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


def make_schema(url: str) -> None:
    """Makes the schema in an empty database and closes it."""

    async def make() -> None:
        async with open_database(url) as database:
            await database.verify()

    # this thread may have an event loop that is running
    with ThreadPoolExecutor(1) as thread:
        thread.submit(asyncio.run, make()).result()


@pytest.fixture(scope="session")
def sqlite_template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A SQLite file with the schema and no rows, to be copied."""
    file = tmp_path_factory.mktemp("schema") / "llmproxy.db"
    make_schema(sqlite_url(file))
    return file


@pytest.fixture
def sqlite_file(tmp_path: Path) -> Path:
    """Where a test's SQLite file is to be. Its folder is not there yet."""
    return tmp_path / "data" / "llmproxy.db"


@pytest.fixture(params=["sqlite", "postgresql"])
def database_kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def empty_database_url(request: pytest.FixtureRequest, database_kind: str, sqlite_file: Path) -> str:
    """The URL of a database without the schema, of each kind."""
    if database_kind == "sqlite":
        return sqlite_url(sqlite_file)
    server: PostgresServer = request.getfixturevalue("postgres")
    return server.create_empty()


@pytest.fixture
def database_url(request: pytest.FixtureRequest, database_kind: str, sqlite_file: Path, sqlite_template: Path) -> str:
    """The URL of a database with the schema and no rows, of each kind."""
    if database_kind == "sqlite":
        return _copied(sqlite_template, sqlite_file)
    server: PostgresServer = request.getfixturevalue("postgres")
    return server.create()


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    """An open database with its schema, of each kind."""
    async with open_database(database_url) as database:
        await database.verify()
        yield database


@pytest.fixture
async def sqlite(sqlite_file: Path, sqlite_template: Path) -> AsyncIterator[Database]:
    """An open SQLite database with its schema, in ``sqlite_file``."""
    async with open_database(_copied(sqlite_template, sqlite_file)) as database:
        await database.verify()
        yield database


def _copied(template: Path, file: Path) -> str:
    """The URL of a copy of ``template`` at ``file``, or of the file that another fixture has put there."""
    if not file.exists():
        file.parent.mkdir(exist_ok=True)
        shutil.copyfile(template, file)
    return sqlite_url(file)


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
