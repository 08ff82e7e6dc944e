"""A queue on each kind of database, with a clock that the test turns."""

import pytest

from llmproxy.database.engine import Database
from llmproxy.jobs.notifications import JobNotifications
from llmproxy.jobs.queue import Queue
from llmproxy.jobs.store import Store
from tests.clock import Clock


@pytest.fixture
def clock() -> Clock:
    return Clock(1_700_000_000.0)


@pytest.fixture
def queue(database: Database, clock: Clock) -> Queue:
    return Queue(Store(database), JobNotifications(), clock, clock.shared)
