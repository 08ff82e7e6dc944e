"""The rows of events, over each database: only who holds the lease writes them, and who begins anew deletes the old."""

import pytest

from llmproxy.database.engine import Database
from llmproxy.jobs import lifecycle
from llmproxy.jobs import response_events as events
from llmproxy.jobs.model import Claimed, JobKind, NewCall, NewJob
from llmproxy.jobs.notifications import JobNotifications
from llmproxy.jobs.queue import Queue
from llmproxy.jobs.store import Store
from llmproxy.jobs.stored_model import AnswerKind, StoredAnswer

ID = "resp_1"
OPENING = [(0, b"event: response.created\n\n"), (1, b"event: response.queued\n\n")]


@pytest.fixture
async def queue(database: Database) -> Queue:
    """A queue with one Response of the background in it."""
    queue = Queue(Store(database), JobNotifications(), lambda: 1_000.0)
    answer = StoredAnswer(ID, AnswerKind.RESPONSE, "", "m", 1_000.0, b"{}", b"[]", background=True, stream=True)
    new = NewJob(JobKind.RESPONSE, "/v1/responses", id=ID)
    await queue.submit(new, [NewCall(0, b"{}")], answer, OPENING)
    return queue


async def claimed(queue: Queue, worker: str) -> Claimed:
    (item,) = await queue.claim(worker, 1, 60.0)
    return item


async def numbers(queue: Queue, after: int = -1, limit: int = 100) -> list[int]:
    return [number for number, _ in await events.read_events(queue.store, ID, after, limit)]


async def test_events_are_read_in_order_from_anywhere(queue: Queue) -> None:
    item = await claimed(queue, "ann")
    assert await events.add_events(queue.store, item, [(3, b"d"), (2, b"c")])
    assert await events.read_events(queue.store, ID, -1, 100) == [*OPENING, (2, b"c"), (3, b"d")]
    assert await numbers(queue, after=1) == [2, 3]
    assert await numbers(queue, after=0, limit=2) == [1, 2]
    assert await numbers(queue, after=3) == []
    assert await events.last_event(queue.store, ID) == (3, b"d")
    assert await events.last_event(queue.store, "resp_2") is None


async def test_who_lost_the_lease_writes_nothing_more(queue: Queue) -> None:
    old = await claimed(queue, "ann")
    assert await events.add_events(queue.store, old, [(2, b"old")])
    assert not await events.was_restarted(queue.store, ID)
    await queue.release("ann")
    assert not await events.add_events(queue.store, old, [(3, b"old")])
    new = await claimed(queue, "ann")
    assert not await events.restart_events(queue.store, old)
    assert await numbers(queue) == [0, 1, 2]
    assert await events.restart_events(queue.store, new)
    assert await numbers(queue) == [0, 1]
    assert await events.add_events(queue.store, new, [(2, b"new")])
    assert not await events.add_events(queue.store, old, [(3, b"old")])
    assert await events.read_events(queue.store, ID, 1, 100) == [(2, b"new")]
    assert await events.was_restarted(queue.store, ID)


async def test_nothing_is_written_after_a_cancellation(queue: Queue) -> None:
    item = await claimed(queue, "ann")
    await lifecycle.cancel(queue, ID)
    assert not await events.add_events(queue.store, item, [(2, b"late")])
    assert await numbers(queue) == [0, 1]
