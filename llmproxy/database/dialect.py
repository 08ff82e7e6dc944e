"""What differs between the databases. Each is one file beside this one and one row in ``engine``'s table."""

from collections.abc import Sequence
from typing import Any, Protocol

from sqlalchemy import URL, ColumnElement, Connection, Engine, Insert, Table
from sqlalchemy.ext.asyncio import AsyncConnection

#: execution option of a connection whose transactions write
WRITES = "llmproxy_writes"
#: execution option of a connection whose transactions are on the disk when they are committed
DURABLE = "llmproxy_durable"


class Dialect(Protocol):
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

    def contains(self, column: ColumnElement[str], text: str) -> ColumnElement[bool]:
        """Whether ``text`` occurs in ``column``, case and all."""
        ...

    async def fetch(self, driver: Any, sql: str, values: Sequence[Any]) -> Sequence[Sequence[Any]]:
        """The rows of a query on the driver's own connection."""
        ...

    def survives_cancelling(self, driver: Any) -> bool:
        """Whether a connection is still good after a ``fetch`` on it was cancelled; if not, it is cut off here."""
        ...

    async def size(self, connection: AsyncConnection) -> int:
        """Bytes that the database takes, free pages included."""
        ...

    async def reclaim(self, driver: Any, pages: int) -> int:
        """Gives up to ``pages`` free pages back to the file system, on a connection outside of any transaction.

        Returns the bytes given back.
        """
        ...
