"""What differs between the databases. Each is one file beside this one and one row in ``engine``'s table."""

from collections.abc import Callable, Sequence
from typing import Any, Protocol

from sqlalchemy import URL, Column, ColumnElement, Connection, Delete, Engine, Insert, Select, Table
from sqlalchemy.ext.asyncio import AsyncConnection

#: words that stand one after the other
Phrase = Sequence[str]
#: the value of a column from the one that is there and the one that is added
Merge = Callable[[Column[Any], ColumnElement[Any]], ColumnElement[Any]]


class DirectConnection(Protocol):
    """A driver's own connection whose calls return when they are done."""

    def execute(self, sql: str, values: Sequence[Any], /) -> Any: ...

    def close(self) -> None: ...


#: execution option of a connection whose transactions write
WRITES = "llmproxy_writes"
#: execution option of a connection whose transactions are on the disk when they are committed
DURABLE = "llmproxy_durable"


class DatabaseDialect(Protocol):
    """One kind of database. Errors of the drivers pass through; ``faults.fault_of`` names them."""

    name: str
    #: what the engine is made from
    url: URL
    #: whether only one transaction can write at a time, so that writers of this process take turns before they try
    single_writer: bool
    #: how many connections point reads hold open
    held_connections: int

    def engine_options(self) -> dict[str, Any]:
        """Keyword arguments for ``create_async_engine``."""
        ...

    def configure(self, engine: Engine) -> None:
        """Registers what every connection and transaction of ``engine`` needs."""
        ...

    def create(self) -> None:
        """Makes the place where the database lives, if it is not there. Blocking; raises ``OSError``."""
        ...

    def identity(self) -> object:
        """What tells this database from another at the same URL; None when it is gone. Blocking."""
        ...

    def lock_schema(self, connection: Connection) -> None:
        """Keeps other processes from changing the schema until the transaction ends."""
        ...

    def upsert(self, table: Table, key: str) -> Insert:
        """An insert of all columns that replaces the row with the same ``key``."""
        ...

    def accumulate(self, table: Table, keys: Sequence[str], rows: Select[Any], merge: Merge) -> Insert:
        """An insert of ``rows``, which are all columns of ``table`` in order. If the ``keys`` are there already,
        ``merge`` gives the new value of each other column."""
        ...

    async def take_turn(self, connection: AsyncConnection, name: str, *, shared: bool = False) -> None:
        """Keeps other transactions that take the turn of this name waiting until this one has ended, in all processes.

        Those that take it ``shared`` wait only for those that do not, and the other way round. Rows that are numbered
        behind it become visible in the order of their numbers.
        """
        ...

    def contains(self, column: ColumnElement[str], text: str) -> ColumnElement[bool]:
        """Whether ``text`` occurs in ``column``, case and all."""
        ...

    def create_text_index(self, name: str) -> Sequence[str]:
        """The statements that make a full-text index ``name``: numbered texts, each a row of words."""
        ...

    def insert_text(self, name: str) -> str:
        """The driver's statement that adds a text to the index ``name``: its id, and what ``encode_text`` gives."""
        ...

    def encode_text(self, words: Phrase) -> str:
        """A text as ``insert_text`` takes it. The words are letters and digits only, see ``history.text_index``."""
        ...

    def search_texts(
        self, name: str, phrases: Sequence[Phrase], before: int | None, limit: int
    ) -> Sequence[Select[Any]]:
        """Queries for the ids of the texts that hold every one of the phrases, one at least: the highest ids, at most
        ``limit``, below ``before`` if that is given. Where one gives fewer than ``limit``, the next one is to be asked.
        """
        ...

    def delete_texts(self, name: str, ids: Sequence[int]) -> Delete:
        """Removes these texts from the index ``name``, where they are there."""
        ...

    def merge_text_index(self, name: str) -> str | None:
        """A statement that takes what was deleted out of the index ``name`` for good, a little at a time; None where
        the database does it by itself."""
        ...

    async def text_index_size(self, connection: AsyncConnection, name: str) -> int:
        """Bytes that the index ``name`` takes, without the texts themselves where it keeps them."""
        ...

    def byte_length(self, column: ColumnElement[str]) -> ColumnElement[int]:
        """The bytes of a text."""
        ...

    def connect_directly(self) -> DirectConnection | None:
        """A connection for point reads on the loop's own thread, which waits for nobody; None if reads here go over a
        network. Blocking."""
        ...

    async def fetch(self, driver: Any, sql: str, values: Sequence[Any]) -> Sequence[Sequence[Any]]:
        """The rows of a query on the driver's own connection."""
        ...

    def survives_cancelling(self, driver: Any) -> bool:
        """Whether a connection is still good after a ``fetch`` on it was cancelled; if not, it is cut off here."""
        ...

    async def now(self, connection: AsyncConnection) -> float | None:
        """The database's own clock in Unix seconds; None where every process that uses it is on one machine."""
        ...

    async def size(self, connection: AsyncConnection) -> int:
        """Bytes that the database takes, free pages included."""
        ...

    async def reclaim(self, driver: Any, pages: int) -> int:
        """Gives up to ``pages`` free pages back to the file system, on a connection outside of any transaction.

        Returns the bytes given back.
        """
        ...
