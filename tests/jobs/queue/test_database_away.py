"""The database goes away and comes back: nothing is half done, and what was not done is said."""

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from sqlalchemy import event

from llmproxy.database.engine import Database, open_database
from llmproxy.jobs.notifications import JobNotifications
from llmproxy.jobs.queue import Queue
from llmproxy.jobs.store import Store
from llmproxy.wire.errors import Unavailable
from tests.clock import Clock
from tests.databases import PostgresServer
from tests.jobs.queue.working import claim, finish, job_of, submit


async def test_postgres_away_and_back(postgres: PostgresServer, clock: Clock) -> None:
    async with open_database(postgres.create()) as database:
        queue = Queue(Store(database), JobNotifications(), clock, clock.shared)
        job = await submit(queue, 3)
        claimed = await claim(queue, limit=2)
        postgres.stop()
        try:
            for attempt in (submit(queue), claim(queue), queue.waiting(), finish(queue, claimed), queue.renew("w", 1)):
                with pytest.raises(Unavailable) as refused:
                    await attempt
                assert refused.value.http_status == 503
                assert dict(refused.value.headers)[b"retry-after"]
        finally:
            postgres.start()
        assert len(await finish(queue, claimed)) == 2
        await finish(queue, await claim(queue))
        assert (await job_of(queue, job.id)).completed == 3


async def test_a_file_that_is_locked_for_long_is_tried_again(sqlite: Database, sqlite_file: Path, clock: Clock) -> None:
    """The other process writes for longer than a statement waits, and has ended when the next try begins."""
    queue = Queue(Store(sqlite), JobNotifications(), clock, clock.shared)
    refused: list[object] = []
    with closing(sqlite3.connect(sqlite_file, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")

        # a connection that was refused is not used again
        @event.listens_for(sqlite.engine.sync_engine, "invalidate")
        def on_error(connection: object, *_: object) -> None:
            refused.append(connection)
            other.execute("ROLLBACK")

        assert (await submit(queue)).total == 3
    assert len(refused) == 1
