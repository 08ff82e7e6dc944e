"""What every user of the write-behind queue promises, on each database: entries of the cache, rows of the history,
stored answers, results of jobs."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any, Protocol

import pytest
from sqlalchemy import select

from llmproxy.cache.sql import SqlTier
from llmproxy.cache.tables import entries
from llmproxy.database.engine import Database
from llmproxy.database.write_behind import WriteLimits
from llmproxy.history.record import COLUMNS, Recorder
from llmproxy.history.tables import history
from llmproxy.history.writer import HistoryWriter
from llmproxy.jobs.model import Claimed, ItemResult, ItemStatus
from llmproxy.jobs.notifications import JobNotifications
from llmproxy.jobs.queue import Queue
from llmproxy.jobs.result_writer import ResultWriter
from llmproxy.jobs.store import Store
from llmproxy.jobs.stored import StoredAnswers
from llmproxy.jobs.stored_model import AnswerKind, StoredAnswer
from llmproxy.jobs.tables import items, stored
from llmproxy.runtime.background import Backoff
from tests.cache.entries import Faults, entry, key
from tests.clock import Clock
from tests.database.faulty import FaultyDatabase, StuckDatabase, full
from tests.history.exchanges import fetched
from tests.jobs.queue.working import claim, submit
from tests.timeouts import WAIT_SECONDS

SOON = Backoff(0.001, 0.001)
#: items of each test at most
MOST = 12


class User(Protocol):
    """One who writes behind. ``real`` is the database without its faults."""

    async def prepare(self, real: Database) -> None:
        """What must be there before items can be written."""
        ...

    def begin(self, database: Database) -> None:
        """Makes the writer and starts it."""
        ...

    def put(self, number: int, *, refused: bool = False) -> None:
        """Hands over an item, or one that no database takes."""
        ...

    async def close(self, limit: float) -> None: ...

    async def written(self, real: Database) -> list[int]:
        """The numbers of the items that are in the database."""
        ...

    @property
    def lost(self) -> int:
        """How many were counted as lost."""
        ...


async def column(database: Database, statement: Any) -> list[Any]:
    async with database.read() as connection:
        return list((await connection.execute(statement)).scalars())


class Entries:
    """Of the cache."""

    def __init__(self) -> None:
        self._faults = Faults()

    async def prepare(self, real: Database) -> None:
        """Nothing."""

    def begin(self, database: Database) -> None:
        common = {"compress_from": 10**9, "clock": Clock(), "on_fault": self._faults, "backoff": SOON}
        self._tier = SqlTier(database, limits=WriteLimits(linger=0.001), **common)  # type: ignore[arg-type]
        self._tier.open()

    def put(self, number: int, *, refused: bool = False) -> None:
        self._tier.keep(entry(number, created=None if refused else 1.0))

    async def close(self, limit: float) -> None:
        await self._tier.close(limit)

    async def written(self, real: Database) -> list[int]:
        numbers = {key(number): number for number in range(MOST)}
        return sorted(numbers[each] for each in await column(real, select(entries.c.key)))

    @property
    def lost(self) -> int:
        return sum(kind in ("refused", "lost", "queue-full") for kind in self._faults.kinds)


class HistoryRows:
    """Of the history."""

    def __init__(self) -> None:
        self._recorder = Recorder(1000)

    async def prepare(self, real: Database) -> None:
        """Nothing."""

    def begin(self, database: Database) -> None:
        self._writer = HistoryWriter(database, queue_rows=100, backoff=SOON)
        self._writer.open()

    def put(self, number: int, *, refused: bool = False) -> None:
        row = self._recorder.row(fetched(request_id=str(number)))
        place = COLUMNS.index("status")
        self._writer.add(1, [(*row[:place], None, *row[place + 1 :]) if refused else row])

    async def close(self, limit: float) -> None:
        await self._writer.close(limit)

    async def written(self, real: Database) -> list[int]:
        return sorted(map(int, await column(real, select(history.c.request_id))))

    @property
    def lost(self) -> int:
        return self._writer.lost


class Answers:
    """That can be asked for again."""

    def __init__(self) -> None:
        self.lost = 0

    async def prepare(self, real: Database) -> None:
        """Nothing."""

    def _lose(self) -> None:
        self.lost += 1

    def begin(self, database: Database) -> None:
        self._answers = StoredAnswers(Store(database), self._lose)
        self._answers.open()

    def put(self, number: int, *, refused: bool = False) -> None:
        common: dict[str, Any] = {"kind": AnswerKind.RESPONSE, "scope": "", "model": "m", "request": b"{}"}
        common |= {"created_at": None if refused else 1.0, "input": b"[]", "document": b"{}"}
        self._answers.keep(StoredAnswer(id=str(number), **common))

    async def close(self, limit: float) -> None:
        await self._answers.close(limit)

    async def written(self, real: Database) -> list[int]:
        return sorted(map(int, await column(real, select(stored.c.id))))


class Results:
    """Of jobs. One that is refused ends its item as failed, and one that is left is done again."""

    def __init__(self) -> None:
        self._tried: list[str] = []
        self._put = 0

    async def prepare(self, real: Database) -> None:
        queue = Queue(Store(real), JobNotifications())
        await submit(queue, MOST)
        self._claimed: list[Claimed] = await claim(queue)

    def begin(self, database: Database) -> None:
        queue = Queue(Store(database), JobNotifications())
        self._writer = ResultWriter(queue, "w", lambda kind, step, came: self._tried.append(came), lambda: None)
        self._writer.open()

    def put(self, number: int, *, refused: bool = False) -> None:
        self._put += 1
        id = "\ud800" if refused else str(number)
        self._writer.add(self._claimed[number], ItemResult(ItemStatus.COMPLETED, 200, b"{}", request_id=id))

    async def close(self, limit: float) -> None:
        closing = asyncio.create_task(self._writer.close())
        await asyncio.wait({closing}, timeout=limit)
        closing.cancel()
        await asyncio.wait({closing})

    async def written(self, real: Database) -> list[int]:
        done = items.c.status == ItemStatus.COMPLETED
        return sorted(await column(real, select(items.c.position).where(done)))

    @property
    def lost(self) -> int:
        return self._put - self._tried.count(ItemStatus.COMPLETED)


USERS: tuple[Callable[[], User], ...] = (Entries, HistoryRows, Answers, Results)


@pytest.fixture(params=USERS, ids=lambda made: made.__name__.lower())
async def user(request: pytest.FixtureRequest, database: Database) -> User:
    made: User = request.param()
    await made.prepare(database)
    return made


@asynccontextmanager
async def writing(user: User, database: Database) -> AsyncIterator[User]:
    """The writer, until all is written or lost."""
    user.begin(database)
    async with asyncio.timeout(WAIT_SECONDS):
        yield user
        await user.close(WAIT_SECONDS)


async def test_what_is_handed_over_is_written_once(user: User, database: Database) -> None:
    async with writing(user, database):
        for number in range(MOST):
            user.put(number)
    assert await user.written(database) == list(range(MOST))
    assert user.lost == 0


async def test_a_fault_is_waited_out(user: User, database: Database) -> None:
    faulty = FaultyDatabase(database, 1, full())
    async with writing(user, faulty):
        user.put(0)
        await faulty.failed.wait()
        user.put(1)
    assert await user.written(database) == [0, 1]
    assert user.lost == 0


async def test_one_that_is_refused_is_lost_alone(user: User, database: Database) -> None:
    async with writing(user, database):
        for number in range(MOST):
            user.put(number, refused=number == 7)
    assert await user.written(database) == [number for number in range(MOST) if number != 7]
    assert user.lost == 1


async def test_the_end_has_a_limit_and_what_is_left_then_is_counted(user: User, database: Database) -> None:
    stuck = StuckDatabase(database)
    user.begin(stuck)
    user.put(0)
    user.put(1)
    async with asyncio.timeout(WAIT_SECONDS):
        await stuck.reached.wait()
        await user.close(0.01)
    assert await user.written(database) == []
    assert user.lost == 2
