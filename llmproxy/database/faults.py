"""What can go wrong with a database, in words that do not depend on which one it is."""

import sqlite3
from enum import StrEnum

from sqlalchemy.exc import StatementError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from llmproxy.wire.errors import ProxyError

#: what no database raises: the code that uses it is wrong
DEFECTS = (LookupError, AttributeError, TypeError, AssertionError)


class DatabaseUnusable(Exception):
    """The database can not be used by this program as it is: an unknown schema, a missing driver, a bad URL."""


class NotOpen(Exception):
    """The database is not open at the moment; somebody is about to open it."""


class DatabaseFault(StrEnum):
    """The kind of a database's fault: the metric label ``kind``."""

    #: no space left
    FULL = "full"
    READ_ONLY = "read-only"
    #: somebody else holds the lock for longer than we wait
    LOCKED = "locked"
    #: no answer in time
    TIMEOUT = "timeout"
    #: no connection, or it broke off
    UNREACHABLE = "unreachable"
    #: the file is damaged, or is no database
    CORRUPT = "corrupt"
    #: a table is missing, or the schema is not this program's
    SCHEMA = "schema"
    #: the statement or its values were refused: the same again would fail again
    REFUSED = "refused"

    @property
    def passes(self) -> bool:
        """Whether the same work may succeed later."""
        return self is not DatabaseFault.REFUSED


#: primary result codes, https://sqlite.org/rescode.html
_SQLITE = {
    sqlite3.SQLITE_FULL: DatabaseFault.FULL,
    sqlite3.SQLITE_READONLY: DatabaseFault.READ_ONLY,
    sqlite3.SQLITE_PERM: DatabaseFault.READ_ONLY,
    sqlite3.SQLITE_BUSY: DatabaseFault.LOCKED,
    sqlite3.SQLITE_LOCKED: DatabaseFault.LOCKED,
    sqlite3.SQLITE_CANTOPEN: DatabaseFault.UNREACHABLE,
    sqlite3.SQLITE_IOERR: DatabaseFault.UNREACHABLE,
    sqlite3.SQLITE_CORRUPT: DatabaseFault.CORRUPT,
    sqlite3.SQLITE_NOTADB: DatabaseFault.CORRUPT,
    # raised for a missing table, which only a replaced or half-made file can cause here
    sqlite3.SQLITE_ERROR: DatabaseFault.SCHEMA,
}

#: SQLSTATE codes and classes, https://www.postgresql.org/docs/current/errcodes-appendix.html; the longest prefix counts
_SQLSTATE = {
    "53100": DatabaseFault.FULL,
    "53": DatabaseFault.UNREACHABLE,
    "25006": DatabaseFault.READ_ONLY,
    "40": DatabaseFault.LOCKED,
    "55P03": DatabaseFault.LOCKED,
    "57014": DatabaseFault.TIMEOUT,
    "57": DatabaseFault.UNREACHABLE,
    "58": DatabaseFault.UNREACHABLE,
    "08": DatabaseFault.UNREACHABLE,
    "28": DatabaseFault.UNREACHABLE,
    "3D": DatabaseFault.UNREACHABLE,
    "42P01": DatabaseFault.SCHEMA,
    "42703": DatabaseFault.SCHEMA,
    "XX": DatabaseFault.CORRUPT,
}


def fault_of(error: BaseException) -> DatabaseFault:
    """The kind of ``error``: from the driver itself, wrapped by SQLAlchemy, or translated for callers."""
    if isinstance(error, ProxyError) and error.__cause__ is not None:
        error = error.__cause__
    if isinstance(error, TimeoutError | PoolTimeout):
        return DatabaseFault.TIMEOUT
    if isinstance(error, DatabaseUnusable):
        return DatabaseFault.SCHEMA
    cause = error.orig if isinstance(error, StatementError) and error.orig is not None else error
    if isinstance(cause, sqlite3.Error):
        # the low byte is the primary code; errors of the module itself have none
        return _SQLITE.get(getattr(cause, "sqlite_errorcode", 0) & 0xFF, _without_code(cause))
    sqlstate = getattr(cause, "sqlstate", None)
    if sqlstate:
        return next((_SQLSTATE[sqlstate[:n]] for n in (5, 2) if sqlstate[:n] in _SQLSTATE), DatabaseFault.REFUSED)
    return _without_code(cause)


def _without_code(error: BaseException) -> DatabaseFault:
    """Errors that carry no code: refused values are ``ValueError`` and the like, all else is a lost connection."""
    if isinstance(error, sqlite3.IntegrityError | sqlite3.DataError | sqlite3.InterfaceError):
        return DatabaseFault.REFUSED
    if isinstance(error, TypeError | UnicodeError | OverflowError):
        return DatabaseFault.REFUSED
    return DatabaseFault.UNREACHABLE
