"""Opens the job queue on a database, with its workers, and closes it again."""

from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial

from llmproxy.api.batch_steps import Finalize, Validate
from llmproxy.api.file_rows import sweep
from llmproxy.api.responses_run import BackgroundCall
from llmproxy.api.services import JobServices
from llmproxy.database.engine import Database
from llmproxy.jobs import maintenance
from llmproxy.jobs.blob_stores import open_blobs
from llmproxy.jobs.call import CallHandler
from llmproxy.jobs.handler import Handlers
from llmproxy.jobs.model import JobKind, Lane, Step
from llmproxy.jobs.notifications import JobNotifications
from llmproxy.jobs.queue import Queue
from llmproxy.jobs.result_writer import OnAttempt
from llmproxy.jobs.store import Store
from llmproxy.jobs.stored import StoredAnswers
from llmproxy.jobs.webhooks import Deliver
from llmproxy.jobs.worker import FixedLimit, InteractiveFirst, Workers
from llmproxy.proxy.services import ProxyServices
from llmproxy.wire.exchange import Exchange, RequestIds

#: seconds between two looks at jobs whose time is up, and at workers that died
_WATCH_SECONDS = 2.0
#: webhooks called at the same time: a receiver that is silent holds up no calls, and few other webhooks
_MESSAGES_AT_ONCE = 8
#: seconds between two looks for what is old
_FORGET_SECONDS = 60.0


def handlers(services: JobServices, call: CallHandler) -> Handlers:
    """The handlers of all steps, by kind of job and step."""
    deliver = Deliver(services.proxy.settings)
    return {
        (JobKind.TASK, Step.CALL): call,
        (JobKind.BATCH, Step.VALIDATE): Validate(
            services.queue, services.blobs, services.proxy.upstreams, services.proxy.settings.max_body_bytes
        ),
        (JobKind.BATCH, Step.CALL): call,
        (JobKind.BATCH, Step.FINALIZE): Finalize(services.queue, services.blobs),
        (JobKind.RESPONSE, Step.CALL): BackgroundCall(call, services.proxy, services.queue, services.answers),
        **{(kind, Step.DELIVER): deliver for kind in JobKind},
    }


@asynccontextmanager
async def open_jobs(
    database: Database,
    proxy: ProxyServices,
    ids: RequestIds,
    count: Callable[[Exchange], None],
    on_attempt: OnAttempt,
    lost: Callable[[], None],
    seconds_left: Callable[[], float],
) -> AsyncIterator[JobServices]:
    """The queue, and as many workers as the settings want in this process.

    ``count`` takes each finished exchange, ``on_attempt`` each attempt at an item; ``lost`` is called for each answer
    that cannot be stored. ``left`` gives the seconds that remain for writing at the end.
    """
    settings, notifications = proxy.settings, JobNotifications()
    store = Store(database)
    queue = Queue(store, notifications)
    answers = StoredAnswers(store, lost)
    services = JobServices(proxy, store, queue, notifications, open_blobs(settings), answers)
    all_handlers = handlers(services, CallHandler(proxy, ids, count))
    workers = [
        Workers(queue, all_handlers, Lane.WORK, InteractiveFirst(settings, proxy.upstreams), settings, on_attempt),
        Workers(queue, all_handlers, Lane.MESSAGES, FixedLimit(_MESSAGES_AT_ONCE), settings, on_attempt),
    ]
    beats = [maintenance.Heartbeat(queue, each, settings.job_lease_seconds) for each in workers]
    rounds = [
        *(maintenance.periodic("leases", beat.seconds, beat) for beat in beats),
        maintenance.periodic("the dead", _WATCH_SECONDS, partial(maintenance.release_crashed, queue)),
        maintenance.periodic("expiry", _WATCH_SECONDS, partial(maintenance.expire, queue)),
        maintenance.periodic(
            "retention",
            _FORGET_SECONDS,
            partial(maintenance.delete_old, queue, settings.job_retention_days, [answers.delete_old]),
        ),
        maintenance.periodic("files", _FORGET_SECONDS, partial(sweep, store, services.blobs, queue.clock)),
    ]
    async with AsyncExitStack() as stack:
        answers.open()
        stack.push_async_callback(lambda: answers.close(seconds_left()))
        for worker in workers if settings.task_queue_workers else ():
            worker.open()
            stack.push_async_callback(worker.close)
        for each in rounds:
            each.open()
            stack.push_async_callback(each.close)
        yield services
