"""Databases whose writes go wrong."""

import asyncio
import sqlite3
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from sqlalchemy.ext.asyncio import AsyncConnection

from llmproxy.database.engine import Database


class FaultyDatabase(Database):
    """Its first ``failures`` writes fail, each in the same way, before the work is done."""

    def __init__(self, real: Database, failures: int, error: Exception) -> None:
        super().__init__(real.dialect, real.engine)
        self.failures = failures
        self._error = error
        self.attempts = 0
        self.failed = asyncio.Event()

    @asynccontextmanager
    async def write(self, *, durable: bool = False) -> AsyncIterator[AsyncConnection]:
        self.attempts += 1
        if self.failures > 0:
            self.failures -= 1
            self.failed.set()
            raise self._error
        async with super().write(durable=durable) as connection:
            yield connection


class StuckDatabase(Database):
    """Its writes never end."""

    def __init__(self, real: Database) -> None:
        super().__init__(real.dialect, real.engine)
        self.reached = asyncio.Event()

    @asynccontextmanager
    async def write(self, *, durable: bool = False) -> AsyncIterator[AsyncConnection]:
        self.reached.set()
        await asyncio.Event().wait()
        async with super().write(durable=durable) as connection:
            yield connection


def full() -> Exception:
    """What a full disk raises."""
    error = sqlite3.OperationalError("database or disk is full")
    error.sqlite_errorcode = sqlite3.SQLITE_FULL
    return error


def locked() -> Exception:
    """What another process's lock raises."""
    error = sqlite3.OperationalError("database is locked")
    error.sqlite_errorcode = sqlite3.SQLITE_BUSY
    return error
