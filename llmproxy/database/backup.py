"""Copies of a whole database in a file, and a database made of such a copy.

SQLite's are made by its own backup interface, beside a program that goes on writing; PostgreSQL's by ``pg_dump`` and
``pg_restore``. All functions block.
"""

import contextlib
import os
import shutil
import sqlite3
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

from sqlalchemy import URL, make_url

from llmproxy.database.faults import DatabaseUnusable
from llmproxy.database.schema import check_age

#: takes the bytes that are copied and all that there are
OnProgress = Callable[[int, int], object]

#: bytes copied between two reports
_STEP_BYTES = 16 * 1024 * 1024
_BUSY_SECONDS = 10.0


def back_up_sqlite(database: Path, file: Path, on_progress: OnProgress) -> None:
    """Copies ``database`` as it is at one moment, whatever is written meanwhile, into ``file``.

    That is there only once it is whole.

    Raises ``OSError``, ``sqlite3.Error``.
    """
    with _connected(database, "ro") as source, _made_whole(file) as part:
        # one state of the database for as long as this transaction lasts: nobody who writes waits for it
        source.execute("BEGIN")
        source.execute("SELECT count(*) FROM sqlite_schema").fetchone()
        _copy(source, part, on_progress)


def restore_sqlite(file: Path, database: Path, on_progress: OnProgress) -> Path | None:
    """Puts a copy of ``file`` in the place of ``database``. Returns where the earlier one is then, if there was one.

    Raises ``DatabaseUnusable`` if the file is no backup that this version can use, or if a program uses the database;
    ``OSError``, ``sqlite3.Error``.
    """
    check_sqlite(file)
    database.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    existed = database.exists()
    if existed:
        check_unused(database)
    earlier = database.with_name(f"{database.name}.before-restore")
    with _connected(file, "ro") as source, _made_whole(database, keep=earlier) as part:
        _copy(source, part, on_progress)
    return earlier if existed else None


def check_sqlite(file: Path) -> None:
    """Raises ``DatabaseUnusable`` for a file that is no whole database of this program's, or one of a newer version."""
    try:
        with _connected(file, "ro") as connection:
            flaws = [str(row[0]) for row in connection.execute("PRAGMA quick_check(1)")]
            revisions = connection.execute("SELECT version_num FROM alembic_version").fetchall()
    except sqlite3.Error as error:
        raise DatabaseUnusable(f"{file} is no backup of an llmproxy database: {error}") from error
    if flaws != ["ok"] or len(revisions) != 1:
        raise DatabaseUnusable(f"{file} is damaged: {flaws[0] if flaws != ['ok'] else 'it has no schema'}")
    check_age(str(revisions[0][0]))


def check_unused(database: Path) -> None:
    """Raises ``DatabaseUnusable`` if any program has the database open."""
    try:
        with _connected(database, "rw", seconds=0.0) as connection:
            # in this mode the first access takes the whole file, and is refused where anybody has it open
            connection.execute("PRAGMA locking_mode = EXCLUSIVE")
            connection.execute("BEGIN EXCLUSIVE")
            connection.execute("ROLLBACK")
    except sqlite3.OperationalError as error:
        if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY:
            raise
        raise DatabaseUnusable(f"{database} is in use: stop `llmproxy serve` and its workers first") from error
    except sqlite3.DatabaseError:
        # damaged: a reason to restore it
        return


def _copy(source: sqlite3.Connection, part: Path, on_progress: OnProgress) -> None:
    page_size = int(source.execute("PRAGMA page_size").fetchone()[0])

    def report(status: int, remaining: int, total: int) -> None:
        on_progress((total - remaining) * page_size, total * page_size)

    with contextlib.closing(sqlite3.connect(part)) as target:
        source.backup(target, pages=max(1, _STEP_BYTES // page_size), progress=report, sleep=0.0)
        # one file and no other beside it; the program that opens it changes this back
        target.execute("PRAGMA journal_mode = DELETE")


@contextlib.contextmanager
def _connected(file: Path, mode: str, seconds: float = _BUSY_SECONDS) -> Iterator[sqlite3.Connection]:
    uri = f"{file.absolute().as_uri()}?mode={mode}"
    with contextlib.closing(sqlite3.connect(uri, uri=True, timeout=seconds, isolation_level=None)) as connection:
        yield connection


@contextlib.contextmanager
def _made_whole(file: Path, keep: Path | None = None) -> Iterator[Path]:
    """Yields the path of a new file, readable by its owner alone, which gets the name ``file`` when all went well.

    An earlier file of that name is then called ``keep``, if that is given.
    """
    part = file.with_name(f"{file.name}.part")
    part.unlink(missing_ok=True)
    part.touch(mode=0o600)
    try:
        yield part
        with part.open("rb") as written:
            os.fsync(written.fileno())
        if keep is not None and file.exists():
            file.replace(keep)
            for suffix in ("-wal", "-shm"):
                # what is of the earlier one must not be taken for the new one's
                with contextlib.suppress(FileNotFoundError):
                    Path(f"{file}{suffix}").replace(f"{keep}{suffix}")
        part.replace(file)
    finally:
        for suffix in ("", "-wal", "-shm", "-journal"):
            Path(f"{part}{suffix}").unlink(missing_ok=True)


def pg_dump(url: str, file: Path) -> "PostgresCommand":
    """What copies a PostgreSQL database into ``file``."""
    return PostgresCommand("pg_dump", ["--format=custom", "--no-owner", f"--file={file}"], make_url(url))


def pg_restore(file: Path, url: str) -> "PostgresCommand":
    """What makes a PostgreSQL database what it was when ``file`` was made."""
    options = ["--clean", "--if-exists", "--no-owner", "--single-transaction"]
    return PostgresCommand("pg_restore", [*options, str(file)], make_url(url))


class PostgresCommand:
    """A call of one of PostgreSQL's own programs for the database at an SQLAlchemy URL. Its text holds no password."""

    def __init__(self, program: str, arguments: list[str], url: URL) -> None:
        query = {"sslmode" if name == "ssl" else name: value for name, value in url.query.items()}
        self._password = url.password
        without = url.set(drivername="postgresql", query=query)._replace(password=None)
        self._arguments = [program, *arguments[:-1], f"--dbname={without.render_as_string()}", arguments[-1]]

    def __str__(self) -> str:
        return " ".join(f"'{each}'" if set(each) & set("?&*() ") else each for each in self._arguments)

    def run(self) -> None:
        """Raises ``DatabaseUnusable`` with the program's first line if it fails, with the command if it is missing."""
        program = shutil.which(self._arguments[0])
        if program is None:
            raise DatabaseUnusable(f"{self._arguments[0]} is not installed here; where it is, run: {self}")
        password = {} if self._password is None else {"PGPASSWORD": str(self._password)}
        done = subprocess.run(
            [program, *self._arguments[1:]], env={**os.environ, **password}, capture_output=True, text=True, check=False
        )
        if done.returncode:
            lines = done.stderr.strip().splitlines() or [f"{self._arguments[0]} ended with {done.returncode}"]
            raise DatabaseUnusable(lines[0])
