"""Performance on its way into the database, and back."""

import asyncio
from pathlib import Path

import pytest
from sqlalchemy import select

from llmproxy.database.engine import Database, open_database
from llmproxy.history import rollups as module
from llmproxy.history.rollups import (
    HOURS_KEPT,
    MINUTES_KEPT,
    SUMS_REMEMBERED,
    Rollups,
    condense,
    insert_minutes,
    read_cells,
    sum_up_before,
)
from llmproxy.history.rollups import rollups as table
from llmproxy.observe.performance import Cell, Cells, Performance, PerformanceSeries, points, report
from llmproxy.observe.quantiles import EXACT, Distribution
from llmproxy.wire.exchange import Usage
from llmproxy.wire.vocabulary import CacheStatus
from tests.clock import Clock
from tests.databases import ruin_sqlite, sqlite_url
from tests.history.exchanges import fetched
from tests.timeouts import WAIT_SECONDS

MISSES = PerformanceSeries("chat", "smollm2", "miss")
HOUR = 3600
#: some full hour
NOON = 1_700_000 * HOUR


@pytest.fixture
def clock() -> Clock:
    return Clock(float(NOON))


@pytest.fixture
def performance(clock: Clock) -> Performance:
    return Performance(clock=clock)


@pytest.fixture
def kept(database: Database, performance: Performance, clock: Clock) -> Rollups:
    return Rollups(database, performance, clock=clock)


async def spans(database: Database) -> list[tuple[int, int, int]]:
    """Start, length and requests of every row, in order."""
    columns = (table.c.started_at, table.c.seconds, table.c.requests)
    async with database.read() as connection:
        found = await connection.execute(select(*columns).order_by(*columns))
        return [(start, seconds, requests) for start, seconds, requests in found]


def cells_of(*durations: float) -> Cells:
    cell = Cell(requests=len(durations))
    cell.durations.add_all(durations)
    return {MISSES: cell}


async def test_a_minute_that_is_over_is_written_and_read_back(
    database: Database, kept: Rollups, performance: Performance, clock: Clock
) -> None:
    performance.add([fetched(), fetched(status=502, error="no")])
    before = report(performance.since(0), 0, 60)
    clock.now += 60
    await kept.write()
    assert performance.since(0) == {}
    cells, complete = await kept.since(NOON)
    assert complete
    assert report(cells, 0, 60) == before
    assert (await kept.since(NOON + 60))[0] == {}


async def test_what_is_kept_and_what_is_not_yet_add_up(kept: Rollups, performance: Performance, clock: Clock) -> None:
    performance.add([fetched()])
    clock.now += 60
    await kept.write()
    performance.add([fetched(), fetched()])
    cells, _ = await kept.since(NOON)
    assert cells[MISSES].requests == 3
    # reading changed nothing
    assert (await kept.since(NOON))[0][MISSES].requests == 3


async def test_several_processes_add_up(database: Database, clock: Clock) -> None:
    for _ in range(2):
        performance = Performance(clock=clock)
        performance.add([fetched()])
        await Rollups(database, performance, clock=clock).write(current=True)
    cells, _ = await Rollups(database, Performance(clock=clock), clock=clock).since(NOON)
    assert cells[MISSES].requests == 2


async def test_closing_writes_the_minute_that_is_not_over(
    database: Database, kept: Rollups, performance: Performance
) -> None:
    kept.open()
    performance.add([fetched()])
    await kept.close(10.0)
    await kept.close(10.0)
    assert await spans(database) == [(NOON, 60, 1)]


async def test_old_minutes_become_hours_and_say_the_same(database: Database, kept: Rollups, clock: Clock) -> None:
    many = [0.001 * number for number in range(1, EXACT + 50)]
    await insert_minutes(database, {NOON + 60 * minute: cells_of(*many, float(minute)) for minute in range(1, 60)})
    await insert_minutes(database, {NOON + HOUR: cells_of(1.0)})
    before, _ = await kept.since(NOON)
    clock.now = NOON + HOUR + MINUTES_KEPT
    await kept.upkeep()
    # the next hour's are too young
    assert await spans(database) == [(NOON, HOUR, 59 * (len(many) + 1)), (NOON + HOUR, 60, 1)]
    after, _ = await kept.since(NOON)
    assert report(after, 0, HOUR) == report(before, 0, HOUR)


async def test_two_processes_that_make_hours_at_once_make_each_once(database: Database) -> None:
    await insert_minutes(database, {NOON + 60 * minute: cells_of(1.0) for minute in range(60)})
    await asyncio.gather(*(condense(database, NOON + HOUR) for _ in range(3)))
    assert sum(requests for _, _, requests in await spans(database)) == 60


async def test_a_minute_that_comes_late_adds_to_its_hour(database: Database, kept: Rollups) -> None:
    for _ in range(2):
        await insert_minutes(database, {NOON: cells_of(1.0)})
        await condense(database, NOON + HOUR)
    assert await spans(database) == [(NOON, HOUR, 1), (NOON, HOUR, 1)]
    assert (await kept.since(NOON))[0][MISSES].requests == 2


async def test_series_are_kept_apart(database: Database) -> None:
    other = MISSES._replace(model="other")
    await insert_minutes(database, {NOON: {MISSES: Cell(requests=1), other: Cell(requests=2)}})
    await condense(database, NOON + HOUR)
    cells = await read_cells(database, NOON)
    assert {series: cell.requests for series, cell in cells.items()} == {MISSES: 1, other: 2}


async def test_old_hours_become_one_sum_of_all_before(database: Database, kept: Rollups, clock: Clock) -> None:
    await insert_minutes(database, {NOON + hour * HOUR: cells_of(1.0) for hour in range(3)})
    for hour in range(2):
        clock.now = NOON + hour * HOUR + HOURS_KEPT + 1
        await kept.upkeep()
    assert await spans(database) == [(NOON, 0, 2), (NOON + 2 * HOUR, HOUR, 1)]
    # windows begin later, whatever they ask for
    assert (await kept.since(0))[0][MISSES].requests == 1


async def test_two_processes_that_sum_up_at_once_do_so_once(database: Database) -> None:
    await insert_minutes(database, {NOON + 60 * minute: cells_of(1.0) for minute in range(60)})
    await asyncio.gather(*(sum_up_before(database, NOON + HOUR) for _ in range(3)))
    assert sum(requests for _, _, requests in await spans(database)) == 60


async def test_what_was_saved_since_installation(
    database: Database, kept: Rollups, performance: Performance, clock: Clock
) -> None:
    none = {"upstream_seconds": 0.0, "prompt_tokens": 0, "completion_tokens": 0}
    assert await kept.all_time() == {"since": None, "requests": 0, "errors": 0, "hit_rate": None, "saved": none}
    hit = fetched(cache=CacheStatus.HIT, upstream_seconds=2.0, usage=Usage(3, 4))
    performance.add([hit, fetched()])
    clock.now += 60
    await kept.write()
    performance.add([hit, hit, fetched()])
    before = await kept.all_time()
    assert before is not None
    assert before["saved"] == {"upstream_seconds": 6.0, "prompt_tokens": 9, "completion_tokens": 12}
    assert (before["since"], before["requests"], before["hit_rate"]) == (NOON, 5, 3 / 5)
    # nothing counts twice, or not, while it moves
    clock.now += 60
    await kept.write()
    assert await kept.all_time() == before
    clock.now += HOURS_KEPT + HOUR
    await kept.upkeep()
    assert {seconds for _, seconds, _ in await spans(database)} == {0}
    assert await kept.all_time() == before
    # of other processes it is known after a while
    await insert_minutes(database, {NOON: cells_of(1.0)})
    clock.now += SUMS_REMEMBERED
    after = await kept.all_time()
    assert after is not None
    assert after["requests"] == 6


async def test_what_is_long_over_is_read_once_an_hour(database: Database, clock: Clock) -> None:
    performance = Performance(clock=clock)
    kept = Rollups(database, performance, clock=clock)
    await insert_minutes(database, {NOON + HOUR * hour: cells_of(0.5, 1.5) for hour in range(24)})
    clock.now = NOON + 24 * HOUR
    performance.add([fetched()])
    figures = []
    for _ in range(2):
        cells, steps = (await kept.since(NOON))[0], (await kept.steps(NOON, 4 * HOUR))[0]
        figures.append(report(cells, 0, HOUR)["total"])
        assert [sum(cell.requests for cell in each.values()) for _, each in sorted(steps.items())] == [8] * 6 + [1]
        # what comes so late is seen an hour later
        await insert_minutes(database, {NOON: cells_of(1.0)})
    assert figures[0] == figures[1]
    assert figures[0]["requests"] == 49
    clock.now += HOUR
    assert (await kept.since(NOON))[0][MISSES].requests == 51
    assert sum(cell.requests for cell in (await kept.steps(NOON, 4 * HOUR))[0][NOON].values()) == 10


async def test_steps_add_up_to_the_whole(kept: Rollups, performance: Performance, clock: Clock) -> None:
    for minute in range(10):
        clock.now = NOON + 60 * minute
        performance.add([fetched(), fetched(cache=CacheStatus.HIT)])
        if minute < 8:
            await kept.write()
    steps, complete = await kept.steps(NOON, 180)
    assert complete
    counts = {start - NOON: [cell.requests for cell in cells.values()] for start, cells in steps.items()}
    assert counts == {0: [3, 3], 180: [3, 3], 360: [3, 3], 540: [1, 1]}
    shown = points(steps, NOON, clock.now + 180, 180)
    assert [(each["at"] - NOON, each["requests"], each["hit_rate"]) for each in shown[2:]] == [
        (360, {"hit": 3, "miss": 3}, 0.5),
        (540, {"hit": 1, "miss": 1}, 0.5),
        (720, {}, None),
    ]
    # reading changed nothing
    assert (await kept.steps(NOON, 180))[0].keys() == steps.keys()
    assert performance.minutes(NOON + 540)[NOON + 540][MISSES].requests == 1


async def test_while_the_database_is_at_fault_minutes_wait_and_are_told(
    sqlite_file: Path, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    told: list[tuple[str, str]] = []
    performance = Performance(clock=clock)
    async with open_database(sqlite_url(sqlite_file)) as database:
        await database.verify()
        kept = Rollups(database, performance, on_fault=lambda part, fault: told.append((part, fault)), clock=clock)
        ruin_sqlite(sqlite_file)
        performance.add([fetched()])
        clock.now += 60
        for _ in range(2):
            with pytest.raises(Exception, match="not a database"):
                await kept.write()
        cells, complete = await kept.since(NOON)
        assert (cells[MISSES].requests, complete) == (1, False)
        await kept.close(1.0)
        assert (told, len(caplog.records)) == ([("performance", "corrupt")], 1)


async def test_what_the_database_refuses_does_not_wait_for_ever(
    database: Database, kept: Rollups, performance: Performance
) -> None:
    performance.add([fetched()])
    performance.since(0)
    # no database holds it
    performance.give_back({NOON: {MISSES: Cell(requests=10**30)}})
    with pytest.raises(Exception, match=r"(?i)int"):
        await kept.write(current=True)
    assert (performance.since(0), performance.lost) == ({}, 1)


async def test_a_row_that_cannot_be_read_is_a_fault_and_no_more(
    sqlite: Database, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    performance = Performance(clock=clock)
    monkeypatch.setattr(Distribution, "pack", lambda self: b"of another program")
    await insert_minutes(sqlite, {NOON: cells_of(1.0)})
    cells, complete = await Rollups(sqlite, performance, clock=clock).since(NOON)
    assert (cells, complete) == ({}, False)


async def test_the_task_writes_by_itself_and_makes_hours(
    database: Database, performance: Performance, kept: Rollups, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "ROUND_SECONDS", 0.001)
    performance.add([fetched()])
    clock.now += MINUTES_KEPT + HOUR
    kept.open()
    async with asyncio.timeout(WAIT_SECONDS):
        while await spans(database) != [(NOON, HOUR, 1)]:
            pass
    await kept.close(10.0)
