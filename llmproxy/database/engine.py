"""A database, opened when first needed and opened again when it was lost."""

import asyncio
import importlib
import logging
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress
from time import monotonic
from typing import Any, Self

from sqlalchemy import URL, Select, make_url
from sqlalchemy.exc import ArgumentError, DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine

from llmproxy.database import schema
from llmproxy.database.faults import DatabaseFault, DatabaseUnusable, NotOpen, fault_of
from llmproxy.database.outage import DatabaseUse, OutageLog
from llmproxy.database.reads import DirectReads, HeldReads, PointQuery, Rows, compile_query
from llmproxy.database.sql_dialect import DURABLE, WRITES, DatabaseDialect

log = logging.getLogger(__name__)

#: a database is one file and one row here; loaded by name, so that nobody pays for the others
DIALECTS = {
    "sqlite": "llmproxy.database.sqlite:Sqlite",
    "postgresql": "llmproxy.database.postgres:Postgres",
}

#: faults that may be the connections' own: the database is opened again after them
_SUSPECT = frozenset({DatabaseFault.READ_ONLY, DatabaseFault.UNREACHABLE})

#: seconds that a writer waits for the other writers of this process
_TURN_SECONDS = 10.0
#: who is cancelled after so many seconds of waiting for the database was kept waiting by it
_SILENT_SECONDS = 2.0


class Database:
    """An engine, its held read connections and its writer's turn.

    Nothing is opened before it is needed, so that a database that is down does not keep the program from starting.
    Every method raises what the driver or SQLAlchemy raises (``faults.fault_of`` names it), ``TimeoutError`` where
    a wait was too long and ``DatabaseUnusable`` where waiting would not help.
    """

    def __init__(self, dialect: DatabaseDialect, engine: AsyncEngine):
        self.dialect = dialect
        self.engine = engine
        #: grows when the database turns out to be another one than before: its file was deleted, or replaced
        self.generation = 0
        self._reads = HeldReads(engine, dialect)
        self._direct = DirectReads()
        self._queries: dict[Select[Any], PointQuery] = {}
        self._verifying: asyncio.Task[None] | None = None
        self._verify_began = 0.0
        self._turn = asyncio.Lock()
        self._identity: object = None
        self._suspect = False
        self._refused: DatabaseUnusable | None = None
        is_file = dialect.name == "sqlite"
        self._outage = OutageLog(str(dialect.url.database) if is_file else dialect.url.render_as_string())

    async def verify(self) -> None:
        """Opens the database where that is still to be done, or again where its file is not the one that was opened.

        A missing file and a missing schema are made. Cheap when nothing is to be done. A caller that is cancelled, for
        its time being up, does not stop it for the others.
        """
        if self._refused is not None:
            raise self._refused
        if self._verifying is None:
            self._verify_began = monotonic()
            self._verifying = asyncio.create_task(self._verify(), name="database opening")
            self._verifying.add_done_callback(self._verified)
        await asyncio.shield(self._verifying)

    def _verified(self, task: asyncio.Task[None]) -> None:
        self._verifying = None
        # looked at here, because every caller may have left
        if task.cancelled() or (error := task.exception()) is None:
            return
        # what keeps the program from starting is the start's to say
        if self.generation or not isinstance(error, DatabaseUnusable):
            self._outage.failed(DatabaseUse.OPENING, error, self._verify_began)

    async def _verify(self) -> None:
        identity = await asyncio.to_thread(self.dialect.identity)
        if identity is None or identity != self._identity:
            self._identity = None
        elif not self._suspect:
            return
        self._direct.close()
        await self._reads.close()
        await self.engine.dispose()
        await asyncio.to_thread(self.dialect.create)
        identity = await asyncio.to_thread(self.dialect.identity)
        try:
            await schema.ensure(self.engine, self.dialect)
        except DatabaseUnusable as error:
            # not to be tried again and again: only a restart brings another program or another database
            self._refused = error
            raise
        if self._identity is None:
            if self.generation:
                log.warning("the database file was gone or replaced: what it held is lost, a new one is in use")
            self.generation += 1
        with suppress(Exception):
            # whatever it was: the reads on threads find it again
            self._direct.use(await asyncio.to_thread(self.dialect.connect_directly))
        self._identity = identity
        self._suspect = False

    @asynccontextmanager
    async def write(self, *, durable: bool = False) -> AsyncIterator[AsyncConnection]:
        """A transaction that writes: committed at the end, rolled back by an error.

        On a database with a single writer it holds the write lock from its beginning, so keep it short. ``durable``
        ones survive the machine's loss of power, the others only that of the program.
        """
        began = monotonic()
        await self.verify()
        with self._watched(DatabaseUse.WRITING, began):
            async with self._writers_turn(), self.engine.connect() as connection:
                await connection.execution_options(**{WRITES: True, DURABLE: durable})
                try:
                    async with connection.begin():
                        yield connection
                except DBAPIError as error:
                    await connection.invalidate()
                    # handles opened while the file could not be written stay so, and share that with new ones
                    self._suspect = self._suspect or fault_of(error) in _SUSPECT
                    raise

    @contextmanager
    def _watched(self, use: DatabaseUse, began: float) -> Iterator[None]:
        """Reports what comes of the work within, which ``began`` (monotonic) before the database was verified."""
        try:
            yield
        except Exception as error:
            self._outage.failed(use, error, began)
            raise
        except asyncio.CancelledError:
            # as a rule a caller's time limit was over: the database was not heard of within it
            if (seconds := monotonic() - began) > _SILENT_SECONDS:
                self._outage.failed(use, TimeoutError(f"no answer within {seconds:.1f} s"), began)
            raise
        self._outage.worked(use, began)

    @asynccontextmanager
    async def _writers_turn(self) -> AsyncIterator[None]:
        if not self.dialect.single_writer:
            yield
            return
        async with asyncio.timeout(_TURN_SECONDS):
            await self._turn.acquire()
        try:
            yield
        finally:
            self._turn.release()

    @asynccontextmanager
    async def read(self) -> AsyncIterator[AsyncConnection]:
        """A connection for reading, from the pool; on SQLite it sees one state from its first query on."""
        began = monotonic()
        if self._identity is None:
            await self.verify()
        with self._watched(DatabaseUse.READING, began):
            async with self.engine.connect() as connection:
                yield connection

    def point_query(self, statement: Select[Any], names: Sequence[str]) -> PointQuery:
        """Compiles ``statement`` for ``rows``, once; see ``reads.compile_query``."""
        if statement not in self._queries:
            self._queries[statement] = compile_query(statement, names, self.engine)
        return self._queries[statement]

    async def rows(self, query: PointQuery, values: Sequence[Any]) -> Rows:
        """A point read, on the driver's own connection: a fifth of the cost of ``read``.

        It never opens the database, whose making may take longer than any look-up may: ``NotOpen`` until it is.
        """
        if self._identity is None:
            raise NotOpen
        return await self._reads.rows(query, values)

    def rows_at_once(self, query: PointQuery, values: Sequence[Any]) -> Rows | None:
        """A point read on the loop's own thread; None if it has to be asked for with ``rows``. Raises nothing.

        Not for rows that may be large: reading them holds up every request.
        """
        return None if self._identity is None else self._direct.rows(query, values)

    async def size(self) -> int:
        """Bytes that the database takes."""
        async with self.read() as connection:
            return await self.dialect.size(connection)

    async def reclaim(self, pages: int) -> int:
        """Gives up to ``pages`` free pages back to the file system. Returns the bytes given back."""
        await self.verify()
        async with self._writers_turn(), self.engine.connect() as connection:
            driver = (await connection.get_raw_connection()).driver_connection
            return await self.dialect.reclaim(driver, pages)

    async def close(self) -> None:
        """Closes every connection. Safe to call twice."""
        if self._verifying is not None:
            self._verifying.cancel()
            await asyncio.wait({self._verifying})
        self._direct.close()
        await self._reads.close()
        await self.engine.dispose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()


def open_database(url: str) -> Database:
    """The database at an SQLAlchemy URL. Connects to nothing yet.

    Raises ``DatabaseUnusable`` for a URL that is none, for an unknown kind of database, or where its driver is missing.
    """
    dialect = _dialect(url)
    try:
        engine = create_async_engine(dialect.url, **dialect.engine_options())
    except ModuleNotFoundError as error:
        raise DatabaseUnusable(f"{dialect.name} needs the package {error.name}: pip install {error.name}") from error
    dialect.configure(engine.sync_engine)
    return Database(dialect, engine)


def _dialect(text: str) -> DatabaseDialect:
    try:
        url = make_url(text)
    except ArgumentError as error:
        raise DatabaseUnusable("the database URL is not of the form dialect+driver://user@host/name") from error
    path = DIALECTS.get(url.get_backend_name())
    if path is None:
        raise DatabaseUnusable(f"{url.get_backend_name()} is none of the databases: {', '.join(DIALECTS)}")
    module, name = path.split(":")
    make: Callable[[URL], DatabaseDialect] = getattr(importlib.import_module(module), name)
    return make(url)
