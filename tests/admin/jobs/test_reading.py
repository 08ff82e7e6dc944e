"""What the operator's API asks of the tables, on each kind of database."""

from llmproxy.database.engine import Database
from llmproxy.jobs import queries
from llmproxy.jobs.model import Failure, ItemResult, ItemStatus, Reschedule
from llmproxy.jobs.notifications import JobNotifications
from llmproxy.jobs.queue import Queue
from llmproxy.jobs.store import Store
from tests.admin.jobs.submitting import chats, task


async def test_failed_calls_and_attempts(database: Database) -> None:
    store = Store(database)
    queue = Queue(store, JobNotifications())
    job = await queue.submit(task(), chats("abcd"))
    assert (await queries.failed(store, job.id, limit=10), await queries.attempts(store, job.id)) == ([], 0)
    first, second, third, fourth = await queue.claim("w", 4, 60)
    lost = ItemResult(ItemStatus.FAILED, 400, b"{}", error=Failure("c", "m"))
    done = [(third, lost), (first, lost), (second, ItemResult(ItemStatus.COMPLETED, 200, b"{}"))]
    await queue.finish("w", done)
    await queue.reschedule("w", fourth, Reschedule(60))
    failed = await queries.failed(store, job.id, limit=10)
    assert [(item.position, item.status, item.error) for item in failed] == [
        (0, ItemStatus.FAILED, Failure("c", "m")),
        (2, ItemStatus.FAILED, Failure("c", "m")),
    ]
    assert [item.position for item in await queries.failed(store, job.id, limit=1)] == [0]
    assert await queries.attempts(store, job.id) == 4


async def test_a_job_without_calls_has_no_attempts(database: Database) -> None:
    assert await queries.attempts(Store(database), "nobody's") == 0
