"""What the history costs with many rows: fills a database, and prints the milliseconds of pages, filters and searches.

    PYTHONPATH=. .venv/bin/python bench/history.py --rows 1000000
    PYTHONPATH=. .venv/bin/python bench/history.py --rows 1000000 --postgres

    PYTHONPATH=. .venv/bin/python bench/history.py --rows 10000000 --url sqlite+aiosqlite:////tmp/history.db

PostgreSQL is a server of its own, from the programs that are installed. Everything is removed at the end, but for the
database of ``--url``: it is filled if it is empty, and asked again the next time.
"""

import argparse
import asyncio
import json
import random
import shutil
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from itertools import accumulate
from pathlib import Path
from statistics import median

from sqlalchemy import select

from llmproxy.database.engine import Database, open_database
from llmproxy.history import detail, search, totals
from llmproxy.history.detail import previews
from llmproxy.history.explain import explain
from llmproxy.history.record import Recorder, Row
from llmproxy.history.retention import Retention, delete_rows
from llmproxy.history.search import HistoryCursor, HistoryQuery
from llmproxy.history.tables import history
from llmproxy.history.text_index import Texts, phrases_of
from llmproxy.history.totals import Summaries
from llmproxy.history.writer import GROUP, TURN, _insert_statement
from llmproxy.wire.exchange import Caller, Exchange, Usage
from llmproxy.wire.vocabulary import CacheStatus, Phase, Reason
from tests.databases import PostgresServer, postgres_programs

START = 1_800_000_000.0
#: seconds between two requests
STEP = 0.1
MODELS = ("smollm2", "qwen3:8b", "llama3.1:70b", "nomic-embed", "rare-model")
REPEATS = 15
#: rows whose words are their own; more are copies of these
DISTINCT = 1_000_000
#: rows to a transaction
COPIED = 50_000


class Server(PostgresServer):
    """With the memory that a server has by default."""

    def start(self) -> None:
        options = f"-k {self._folder} -c listen_addresses= -c fsync=off -c shared_buffers=128MB -c max_wal_size=4GB"
        self._run("pg_ctl", "-D", self._data, "-w", "-l", str(self._folder / "log"), "-o", options, "start")


class Words:
    """Texts of words as frequent as in a language."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        letters = "abcdefghijklmnopqrstuvwxyz"
        self.all = ["".join(self.random.choices(letters, k=self.random.randint(2, 9))) for _ in range(50_000)]
        self._weights = list(accumulate(1 / (place + 1) for place in range(len(self.all))))

    def text(self, count: int) -> str:
        return " ".join(self.random.choices(self.all, cum_weights=self._weights, k=count))


def exchanges(count: int, words: Words) -> Iterator[Exchange]:
    chance = words.random
    for number in range(count):
        hit = chance.random() < 0.7
        failed = chance.random() < 0.005
        user = f"user-{min(int(chance.expovariate(0.01)), 999)}"
        model = MODELS[4] if number % 50_000 == 7 else MODELS[number % 4]
        question = [{"role": "user", "content": words.text(40)}]
        answer = {"choices": [{"message": {"role": "assistant", "content": words.text(40)}, "finish_reason": "stop"}]}
        yield Exchange(
            request_id=f"req_{number:012d}",
            method="POST",
            path="/v1/chat/completions",
            started=0.0,
            started_at=START + number * STEP,
            caller=Caller("", "k"),
            endpoint="embeddings" if number % 10_000 == 3 else "chat",
            model=model,
            session=f"{user}/{number // 20_000}",
            user=user,
            identity=model,
            key=f"{chance.getrandbits(256):064x}",
            cache=CacheStatus.HIT if hit else CacheStatus.MISS,
            reason=Reason.MEMORY if hit else Reason.ABSENT,
            stored=None if hit else Reason.STORED,
            status=502 if failed else 200,
            usage=Usage(40, 40),
            first_byte=0.1,
            finished=0.5,
            upstream_seconds=1.5,
            phases=dict.fromkeys((Phase.READ, Phase.ADMIT, Phase.KEY, Phase.LOOK_UP, Phase.SEND), 0.0001),
            request_body=json.dumps({"model": model, "messages": question}).encode(),
            response_body=json.dumps(answer).encode(),
            recorded=True,
        )


async def fill(database: Database, count: int, words: Words) -> None:
    recorder, statement = Recorder(256 * 1024), _insert_statement(database)
    made = map(recorder.row, exchanges(count, words))
    seconds = 0.0
    for _ in range(0, count, GROUP):
        group: list[Row] = [row for _, row in zip(range(GROUP), made, strict=False)]
        started = time.perf_counter()
        async with database.write() as connection:
            await database.dialect.take_turn(connection, TURN)
            await connection.exec_driver_sql(statement, group)
        seconds += time.perf_counter() - started
    show("insert", f"{seconds / count * 1e6:.1f} us a row")


async def follow(step: Summaries | Texts, count: int) -> None:
    started, longest, more = time.perf_counter(), 0.0, True
    while more:
        begun = time.perf_counter()
        more = await step.advance()
        longest = max(longest, time.perf_counter() - begun)
    each = (time.perf_counter() - started) / count * 1e6
    show(step.name, f"{each:.1f} us a row, longest piece {longest * 1e3:.0f} ms")


async def timed(name: str, work: Callable[[], Awaitable[object]]) -> None:
    times = []
    for _ in range(REPEATS):
        started = time.perf_counter()
        found = await work()
        times.append((time.perf_counter() - started) * 1e3)
    rows = f", {len(found.rows)} rows{'' if found.next is None else ', more'}" if isinstance(found, search.Page) else ""
    show(name, f"first {times[0]:8.2f}   median {median(times):8.2f} ms{rows}")


def show(name: str, value: str) -> None:
    print(f"{name:<46} {value}", flush=True)


async def ask(database: Database, count: int, words: Words) -> None:
    async def page(**filters: object) -> search.Page:
        return await search.page(database, HistoryQuery(limit=50, **filters))  # type: ignore[arg-type]

    def text(query: str) -> tuple[tuple[str, ...], ...]:
        return tuple(map(tuple, phrases_of(query)))

    middle, end = count // 2, START + count * STEP
    common, usual, rare = words.all[0], words.all[300], words.all[49_000]
    questions: dict[str, dict[str, object]] = {
        "newest": {},
        "a page in the middle": {"after": HistoryCursor(START + middle * STEP, middle)},
        "user": {"user": "user-3"},
        "user with few rows": {"user": "user-800"},
        "session": {"session": "user-3/1"},
        "model": {"model": MODELS[0]},
        "model that is rare": {"model": MODELS[4]},
        "status 502": {"status": 502},
        "status 404, of which there is none": {"status": 404},
        "cache miss": {"cache": "miss"},
        "cache stale, of which there is none": {"cache": "stale"},
        "endpoint that is rare": {"endpoint": "embeddings"},
        "endpoint of which there is none": {"endpoint": "rerank"},
        "since, until: an hour in the middle": {"since": START + middle * STEP, "until": START + middle * STEP + 3600},
        "since: the last minute": {"since": end - 60},
        "user, model, status 502": {"user": "user-3", "model": MODELS[1], "status": 502},
        "user, endpoint of which there is none": {"user": "user-3", "endpoint": "rerank"},
        "text: in most rows": {"text": text(common)},
        "text: in some": {"text": text(usual)},
        "text: rare": {"text": text(rare)},
        "text: in none": {"text": text("nowhere")},
        "text: two words": {"text": text(f"{usual} {words.all[100]}")},
        "text: phrase": {"text": text(f"{words.all[0]}.{words.all[1]}")},
        "text: phrase that is rare": {"text": text(f"{usual}.{words.all[301]}")},
        "text in most rows, user with few rows": {"text": text(common), "user": "user-800"},
        "text in most rows, a page in the middle": {"text": text(common), "after": HistoryCursor(0.0, middle)},
    }
    for name, filters in questions.items():
        await timed(name, lambda filters=filters: page(**filters))
    await timed("users", lambda: totals.user_page(database, 50, None))
    await timed("one user", lambda: totals.one_user(database, "user-3"))
    await timed("sessions", lambda: totals.session_page(database, 50, None, None))
    await timed("one session", lambda: totals.one_session(database, "user-3/1"))
    newest = (await search.page(database, HistoryQuery(limit=5))).rows[-1]
    record = await detail.newest(database, newest["request_id"])
    assert record is not None
    await timed("one exchange", lambda: detail.newest(database, record["request_id"]))
    await timed("explain", lambda: explain(database, record))
    shown = [row["id"] for row in (await page()).rows]
    await timed("previews of the newest", lambda: previews(database, shown))
    await timed("delete 300 rows", lambda: oldest(database))


async def oldest(database: Database) -> int:
    return await delete_rows(database, select(history.c.id, history.c.body_bytes).order_by(history.c.id))


@asynccontextmanager
async def opened(given: str, postgres: bool, folder: Path) -> AsyncIterator[Database]:
    server = None
    url = given or f"sqlite+aiosqlite:///{folder / 'bench.db'}"
    if postgres:
        programs = postgres_programs()
        assert programs is not None, "PostgreSQL is not installed"
        server = Server(programs)
        server.start()
        url = server.create()
    try:
        async with open_database(url) as database:
            yield database
    finally:
        if server is not None:
            server.remove()


async def prepare(database: Database, rows: int, words: Words) -> None:
    if (await search.page(database, HistoryQuery(limit=1))).rows:
        return
    distinct = min(rows, DISTINCT)
    await fill(database, distinct, words)
    before = await database.size()
    show("size", f"{before / 1e6:,.0f} MB")
    await follow(Summaries(database), distinct)
    await follow(Texts(database), distinct)
    for first in range(distinct, rows, distinct):
        await copy(database, first, min(distinct, rows - first))
    if rows > distinct:
        await follow(Summaries(database), rows - distinct)


async def copy(database: Database, first: int, count: int) -> None:
    """The first ``count`` rows once more, later and with ids and words of their own: the database does it by itself."""
    id = "rowid" if database.dialect.name == "sqlite" else "id"
    changed = {
        "id": f"id + {first}",
        "request_id": f"request_id || '.' || {first}",
        "created_at": f"created_at + {first * STEP}",
        "finished_at": f"finished_at + {first * STEP}",
    }
    names = [column.name for column in history.columns]
    values = ", ".join(changed.get(name, name) for name in names)
    started = time.perf_counter()
    for low in range(0, count, COPIED):
        some = f"> {low} AND {{id}} <= {min(low + COPIED, count)}"
        async with database.write() as connection:
            await connection.exec_driver_sql(
                f"INSERT INTO history ({', '.join(names)}) SELECT {values} FROM history WHERE id {some.format(id='id')}"
            )
            await connection.exec_driver_sql(
                f"INSERT INTO history_texts ({id}, words) SELECT {id} + {first}, words FROM history_texts"
                f" WHERE {id} {some.format(id=id)}"
            )
            await connection.exec_driver_sql(f"UPDATE history_marks SET seen = {first + count} WHERE name = 'texts'")
    show(f"copied up to {first + count:,}", f"{(time.perf_counter() - started) / count * 1e6:.1f} us a row")


async def main(rows: int, url: str, postgres: bool) -> None:
    folder = Path(tempfile.mkdtemp(prefix="llmproxy-history-"))
    words = Words(1)
    try:
        async with opened(url, postgres, folder) as database:
            show("rows", f"{rows:,}")
            await prepare(database, rows, words)
            show("size with texts", f"{await database.size() / 1e6:,.0f} MB")
            started = time.perf_counter()
            await Retention(database, days=36_500, max_bytes=2**62)._measure()
            show("retention adds up all rows", f"{time.perf_counter() - started:.1f} s")
            await ask(database, rows, words)
    finally:
        shutil.rmtree(folder)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=1_000_000)
    where = parser.add_mutually_exclusive_group()
    where.add_argument("--postgres", action="store_true")
    where.add_argument("--url", default="", help="a database that is kept")
    given = parser.parse_args()
    asyncio.run(main(given.rows, given.url, given.postgres))
