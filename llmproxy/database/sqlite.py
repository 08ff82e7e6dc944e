"""SQLite in WAL mode: one writer, readers that never wait for it."""

import asyncio
import contextlib
import errno
import os
import sqlite3
import time
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import aiosqlite
from sqlalchemy import (
    URL,
    ColumnClause,
    ColumnElement,
    Connection,
    Delete,
    Engine,
    Insert,
    Integer,
    LargeBinary,
    Select,
    Table,
    cast,
    column,
    delete,
    event,
    func,
    literal_column,
    select,
)
from sqlalchemy import table as table_named
from sqlalchemy.dialects.sqlite import insert
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection
from sqlalchemy.util import await_only

from llmproxy.database.faults import DatabaseUnusable
from llmproxy.database.sql_dialect import DURABLE, WRITES, DirectConnection, Merge, Phrase

#: seconds that a statement waits for another process's lock
_BUSY_SECONDS = 2.0
#: seconds that the making of a new file waits for another process that makes it too
_CREATE_SECONDS = 10.0

#: bytes that a page of a full-text index takes: two share one of the file's. Pages merged in one transaction
_TEXT_PAGE, _MERGED_PAGES = 4096, 200

_EACH_CONNECTION = (
    "PRAGMA synchronous = NORMAL",
    # a mapping of a file that somebody cuts short ends the process with SIGBUS; a read gives an error
    "PRAGMA mmap_size = 0",
    f"PRAGMA journal_size_limit = {4 * 1024 * 1024}",
    "PRAGMA cache_size = -4096",
)

#: the page size first: it is fixed from the moment that auto_vacuum or the journal mode writes the first page
_NEW_FILE = ("PRAGMA page_size = 8192", "PRAGMA auto_vacuum = INCREMENTAL", "PRAGMA journal_mode = WAL")


#: where a connection keeps what its transactions wait for; ``_EACH_CONNECTION`` says what that is at first
_SYNCHRONOUS = "llmproxy.synchronous"


class _Connection(aiosqlite.Connection):
    """The driver's connection, which may be told to stop more than once.

    A close that is cancelled is followed by a stop, and goes on beside it. The driver's own second stop then waits for
    an answer of a thread that has ended, and so does whoever ends the loop.
    """

    def stop(self) -> asyncio.Future[Any] | None:
        return super().stop() if self._running else None


def _connect(path: str, **options: Any) -> _Connection:
    connection = _Connection(partial(_open, path, options), iter_chunk_size=64)
    # a thread that waits for a lock does not keep the program from ending
    connection._thread.daemon = True
    return connection


def _open(path: str, options: Mapping[str, Any]) -> sqlite3.Connection:
    # the driver would begin transactions by itself, late and without the writer's lock
    connection: sqlite3.Connection = sqlite3.connect(path, isolation_level=None, **options)
    try:
        for pragma in _EACH_CONNECTION:
            connection.execute(pragma)
    except BaseException:
        connection.close()
        raise
    return connection


class Sqlite:
    """The ``Dialect`` of SQLite through aiosqlite."""

    name = "sqlite"
    single_writer = True
    held_connections = 2

    def __init__(self, url: URL):
        """Raises ``DatabaseUnusable`` for a database in memory, which connections could not share."""
        if not url.database or ":memory:" in url.database:
            raise DatabaseUnusable("SQLite needs a file: give a path as LLMPROXY_DATABASE_PATH")
        self.url = url
        self._path = Path(url.database)
        #: the file that was made ready: device and number
        self._made: tuple[int, int] | None = None

    def engine_options(self) -> dict[str, Any]:
        return {
            "connect_args": {"timeout": _BUSY_SECONDS, "async_creator_fn": _connect},
            "pool_size": 3,
            "max_overflow": 3,
            "pool_timeout": 5.0,
        }

    def configure(self, engine: Engine) -> None:
        @event.listens_for(engine, "begin")
        def on_begin(connection: Connection) -> None:
            options = connection.get_execution_options()
            if options.get(WRITES, False):
                # of the connection, which others had before; inside of a transaction it could not be changed
                level = "FULL" if options.get(DURABLE) else "NORMAL"
                if connection.info.get(_SYNCHRONOUS, "NORMAL") != level:
                    _execute(connection, f"PRAGMA synchronous = {level}")
                    connection.info[_SYNCHRONOUS] = level
            # taking the lock at BEGIN leaves nothing to fail half-way
            _execute(connection, "BEGIN IMMEDIATE" if options.get(WRITES, False) else "BEGIN")

    def create(self) -> None:
        # answers are private: only the owner may look into a folder and a file that we make
        self._path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._remove_emptied()
        if not self._path.exists():
            self._path.touch(mode=0o600)
        # SQLite says of either no more than that it cannot open the file
        if self._path.is_dir():
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(self._path))
        if not os.access(self._path, os.R_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(self._path))
        deadline = time.monotonic() + _CREATE_SECONDS
        while True:
            try:
                self._set_up()
            except sqlite3.OperationalError as error:
                # two processes that switch a new file to WAL exclude each other without waiting
                if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY or time.monotonic() > deadline:
                    raise
                time.sleep(0.02)
            else:
                status = self._path.stat()
                self._made = status.st_dev, status.st_ino
                return

    def _remove_emptied(self) -> None:
        """Removes a file that somebody has cut to nothing, with what belongs to it: a new one is another file, by which
        the other processes notice."""
        if self._path.exists() and self.identity() is None:
            for path in (self._path, *(self._path.with_name(self._path.name + end) for end in ("-wal", "-shm"))):
                path.unlink(missing_ok=True)

    def _set_up(self) -> None:
        with contextlib.closing(sqlite3.connect(self._path, timeout=_BUSY_SECONDS)) as connection:
            if connection.execute("PRAGMA journal_mode").fetchone() != ("wal",):
                for pragma in _NEW_FILE:
                    connection.execute(pragma)

    def identity(self) -> object:
        try:
            status = self._path.stat()
        except FileNotFoundError:
            return None
        identity = status.st_dev, status.st_ino
        return None if status.st_size == 0 and identity == self._made else identity

    def lock_schema(self, connection: Connection) -> None:
        """BEGIN IMMEDIATE has locked everything already."""

    def upsert(self, table: Table, key: str) -> Insert:
        statement = insert(table)
        replaced = {c.name: statement.excluded[c.name] for c in table.columns if not c.primary_key and c.name != key}
        return statement.on_conflict_do_update(index_elements=[key], set_=replaced)

    def accumulate(self, table: Table, keys: Sequence[str], rows: Select[Any], merge: Merge) -> Insert:
        statement = insert(table).from_select([each.name for each in table.columns], rows)
        merged = {c.name: merge(c, statement.excluded[c.name]) for c in table.columns if c.name not in keys}
        return statement.on_conflict_do_update(index_elements=keys, set_=merged)

    async def take_turn(self, connection: AsyncConnection, name: str, *, shared: bool = False) -> None:
        """BEGIN IMMEDIATE has taken everybody's turn already."""

    def contains(self, column: ColumnElement[str], text: str) -> ColumnElement[bool]:
        return func.instr(column, text) > 0

    def create_text_index(self, name: str) -> Sequence[str]:
        # what is no ASCII is part of a word: the words were told apart before
        return (f"CREATE VIRTUAL TABLE {name} USING fts5(words, tokenize = 'ascii')",)

    def insert_text(self, name: str) -> str:
        return f"INSERT INTO {name} (rowid, words) VALUES (?, ?)"

    def encode_text(self, words: Phrase) -> str:
        return " ".join(words)

    def search_texts(
        self, name: str, phrases: Sequence[Phrase], before: int | None, limit: int
    ) -> Sequence[Select[Any]]:
        # a string in quotes is a phrase, and strings side by side must all be there
        expression = " ".join(f'"{" ".join(phrase)}"' for phrase in phrases)
        id = literal_column("rowid", Integer).label("id")
        found = select(id).select_from(table_named(name)).where(literal_column(name).op("MATCH")(expression))
        if before is not None:
            found = found.where(id < before)
        # the index is kept in this order
        return [found.order_by(id.desc()).limit(limit)]

    def delete_texts(self, name: str, ids: Sequence[int]) -> Delete:
        id: ColumnClause[int] = column("rowid", Integer)
        return delete(table_named(name, id)).where(id.in_(ids))

    def merge_text_index(self, name: str) -> str | None:
        return f"INSERT INTO {name} ({name}, rank) VALUES ('merge', -{_MERGED_PAGES})"

    async def text_index_size(self, connection: AsyncConnection, name: str) -> int:
        # it has a row for each page of the index, and is a hundredth of its size
        pages = await connection.exec_driver_sql(f"SELECT count(*) FROM {name}_idx")
        return int(pages.scalar_one()) * _TEXT_PAGE

    def byte_length(self, column: ColumnElement[str]) -> ColumnElement[int]:
        return func.length(cast(column, LargeBinary))

    def connect_directly(self) -> DirectConnection | None:
        # no wait for a lock, and no mapping of the file: either would hold up the loop, or end the program
        uri = f"{self._path.absolute().as_uri()}?mode=ro"
        connection = sqlite3.connect(uri, uri=True, timeout=0.0, isolation_level=None, check_same_thread=False)
        try:
            for pragma in ("mmap_size = 0", "cache_size = -2048", "query_only = ON"):
                connection.execute(f"PRAGMA {pragma}")
            # reads the schema, which the first look-up would wait for
            connection.execute("SELECT count(*) FROM sqlite_schema").fetchone()
        except BaseException:
            connection.close()
            raise
        return connection

    async def fetch(self, driver: Any, sql: str, values: Sequence[Any]) -> Sequence[Sequence[Any]]:
        rows: Sequence[Sequence[Any]] = await driver.execute_fetchall(sql, values)
        return rows

    def survives_cancelling(self, driver: Any) -> bool:
        # its thread finishes the query and drops the rows; the next one waits for its turn
        return True

    async def now(self, connection: AsyncConnection) -> float | None:
        return None

    async def size(self, connection: AsyncConnection) -> int:
        pages = await connection.exec_driver_sql("PRAGMA page_count")
        page_size = await connection.exec_driver_sql("PRAGMA page_size")
        return int(pages.scalar_one()) * int(page_size.scalar_one())

    async def reclaim(self, driver: Any, pages: int) -> int:
        free = await self._number(driver, "freelist_count")
        if free == 0:
            return 0
        before = await self._number(driver, "page_count")
        # each step frees a page. A statement without columns is stepped once by the driver, a script to its end
        await driver.executescript(f"PRAGMA incremental_vacuum({int(pages)})")
        given = before - await self._number(driver, "page_count")
        # the file itself gets shorter when the log is worked into it
        await driver.execute_fetchall("PRAGMA wal_checkpoint(PASSIVE)")
        return given * await self._number(driver, "page_size")

    async def _number(self, driver: Any, pragma: str) -> int:
        rows = await driver.execute_fetchall(f"PRAGMA {pragma}")
        return int(rows[0][0])


def _execute(connection: Connection, sql: str) -> None:
    """Executes a statement without values and rows: with one hop to the driver's thread, where a cursor of SQLAlchemy's
    takes three. Raises ``DBAPIError``."""
    driver: Any = connection.connection.driver_connection
    try:
        await_only(driver.execute_fetchall(sql))
    except sqlite3.Error as error:
        raise DBAPIError.instance(sql, (), error, sqlite3.Error) from error
