"""Measurements of llmproxy alone: the SQL tier, many callers at once, start-up, memory."""

import json
import os
import shutil
import sqlite3
import statistics
import sys
import time
import tracemalloc
from asyncio import StreamReader, StreamWriter, gather, open_connection, run
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import load
from measured import Target
from servers import Child, Servers, answers, target

from llmproxy.cache.entry import FORMAT, Entry, Packed, Packer, Unpacker
from llmproxy.cache.memory import MemoryTier
from llmproxy.cache.sql import values
from llmproxy.cache.tables import entries

_COLUMNS = [column.name for column in entries.columns if column.name != "id"]
_INSERT = f"INSERT INTO {entries.name} ({', '.join(_COLUMNS)}) VALUES ({', '.join(f':{name}' for name in _COLUMNS)})"
#: rows to one transaction
_GROUP = 20_000
#: as the settings have it
_COMPRESS_FROM = 1024


def sql_hits(servers: Servers, upstream: Child, many: int, rounds: int, seconds: float) -> dict:
    """Hits of ``load.ROWS`` entries in turn with room for one in memory: with these rows only, and among ``many``."""
    small, large = servers.folder / "small.db", servers.folder / "large.db"
    for path in (*_files(small), *_files(large)):
        path.unlink(missing_ok=True)
    _store(servers, upstream, small)
    shutil.copyfile(small, large)
    _fill(large, many)
    one = {"CACHE_MAX_SIZE": 1}
    figures: dict[str, list[float]] = {"small": [], "large": [], "cpu": [], "asked": []}
    with (
        servers.running(servers.llmproxy("small", upstream, small, **one)) as few,
        servers.running(servers.llmproxy("large", upstream, large, **one)) as full,
    ):
        for child in (few, full):
            if b"detail=sql" not in answers(child, "row 1"):
                raise SystemExit(f"a row of {child.name}.db was not answered from the SQL tier")
            load.wrk(target(child, child.name), "rows", 1, seconds, servers.cores.load, "")
        for number in range(rounds):
            for child in (few, full) if number % 2 == 0 else (full, few):
                before = load.asked(upstream.url)
                figure = load.wrk(target(child, child.name), "rows", 1, seconds, servers.cores.load, "")
                figures[child.name].append(figure["p50"])
                figures["cpu"].append(figure["cpu"])
                figures["asked"].append(load.asked(upstream.url) - before)
    size = large.stat().st_size
    for path in _files(large):
        path.unlink(missing_ok=True)
    medians = {name: statistics.median(values) for name, values in figures.items() if name != "asked"}
    return medians | {"rows": many, "bytes": size, "asked": sum(figures["asked"])}


def sql_versions(servers: Servers, upstream: Child, pythons: dict[str, str], rounds: int, seconds: float) -> dict:
    """p50 in microseconds of a hit in the SQL tier among ``load.ROWS`` rows, for each version by its name, in turn.

    ``pythons`` maps a name to the interpreter of the environment that the version is installed in.
    """
    figures: dict[str, list[float]] = {name: [] for name in pythons}
    with ExitStack() as stack:
        children = {}
        for number, (name, python) in enumerate(pythons.items()):
            database = servers.folder / f"version{number}.db"
            for path in _files(database):
                path.unlink(missing_ok=True)
            _store(servers, upstream, database, python)
            child = servers.llmproxy(f"version{number}", upstream, database, python=python, CACHE_MAX_SIZE=1)
            children[name] = stack.enter_context(servers.running(child))
        for number in range(rounds + 1):
            for name, child in children.items() if number % 2 == 0 else reversed(children.items()):
                figure = load.wrk(target(child, name), "rows", 1, seconds, servers.cores.load, "")
                # the first round warms up
                figures[name] += [figure["p50"]] if number else []
    return {name: statistics.median(values) for name, values in figures.items()}


def _store(servers: Servers, upstream: Child, database: Path, python: str = sys.executable) -> None:
    """Has the proxy itself write the rows that will be asked for."""
    with servers.running(servers.llmproxy("filling", upstream, database, python=python)) as child:
        asked = target(child, child.name)
        connection = load.Connection(asked)
        for number in range(load.ROWS):
            connection.ask(load.body(asked, f"row {number}"))
        connection.close()
    with sqlite3.connect(database) as rows:
        (count,) = rows.execute(f"SELECT count(*) FROM {entries.name}").fetchone()
    rows.close()
    if count != load.ROWS:
        raise SystemExit(f"{count} rows were written instead of {load.ROWS}")


def _fill(database: Path, many: int) -> None:
    """Spreads the rows that are there evenly among others like them."""
    rows = sqlite3.connect(database, isolation_level=None)
    rows.row_factory = sqlite3.Row
    rows.execute("PRAGMA synchronous = OFF")
    rows.execute("PRAGMA cache_size = -1000000")
    real = [dict(row) for row in rows.execute(f"SELECT {', '.join(_COLUMNS)} FROM {entries.name}")]
    rows.execute(f"DELETE FROM {entries.name}")
    first = real[0]
    pattern = Unpacker().unpack(Packed(first["key"], first["digest"], FORMAT, first["body"]))
    others = _others(pattern, many - len(real))
    step = max(1, (many - len(real)) // len(real))
    waiting: list[dict] = []
    for row in real:
        waiting.append(row)
        waiting += (other for _, other in zip(range(step), others, strict=False))
        if len(waiting) >= _GROUP:
            _insert(rows, waiting)
            waiting = []
    _insert(rows, [*waiting, *others])
    rows.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    rows.close()


def _others(pattern: Entry, count: int) -> Iterator[dict]:
    now, packer = time.time(), Packer(_COMPRESS_FROM)
    for _ in range(count):
        entry = replace(pattern, key=os.urandom(32), created=now)
        yield values(entry, packer.pack(entry), now)


def _insert(rows: sqlite3.Connection, waiting: list[dict]) -> None:
    rows.execute("BEGIN")
    rows.executemany(_INSERT, waiting)
    rows.execute("COMMIT")


def _files(database: Path) -> list[Path]:
    return [database, Path(f"{database}-wal"), Path(f"{database}-shm")]


def crowd(child: Child, upstream: Child, size: int, rounds: int, *, stream: bool) -> dict:
    """``size`` callers ask the same thing at once; the upstream takes 200 ms for it."""
    asked = target(child, child.name)
    slow = "[stub d=0 c=4000 n=50]" if stream else "[stub d=200000]"
    single, last, calls = [], [], []
    for number in range(rounds):
        for callers, times in ((1, single), (size, last)):
            content = load.body(asked, f"{slow} crowd {callers} {number} {time.time()}", stream=stream)
            before = load.asked(upstream.url)
            times.append(run(_together(asked, content, callers)))
            if callers > 1:
                calls.append(load.asked(upstream.url) - before)
    return {
        "single": statistics.median(single),
        "last": statistics.median(last),
        "ratio": statistics.median(b / a for a, b in zip(single, last, strict=True)),
        "calls": max(calls),
    }


async def _together(asked: Target, content: bytes, callers: int) -> float:
    """Seconds until the last answer is whole."""
    connections = [await open_connection(asked.host, asked.port) for _ in range(callers)]
    request = load.http(asked, content)
    began = time.perf_counter()
    await gather(*(_ask(reader, writer, request) for reader, writer in connections))
    took = time.perf_counter() - began
    for _, writer in connections:
        writer.close()
    return took


async def _ask(reader: StreamReader, writer: StreamWriter, request: bytes) -> None:
    writer.write(request)
    answer = b""
    while not load.whole(answer):
        piece = await reader.read(262_144)
        if not piece:
            raise SystemExit(f"an answer was cut off: {answer[-200:]!r}")
        answer += piece
    if not answer.startswith(b"HTTP/1.1 200"):
        raise SystemExit(f"a caller in the crowd got {answer[:300]!r}")


def starts(servers: Servers, start: Callable[[], Child], rounds: int) -> dict:
    """From the command to the first 200 of a completion, and memory two seconds later.

    ``start()`` returns the server before it is ready.
    """
    seconds, memory = [], []
    for _ in range(rounds):
        began = time.perf_counter()
        child = start()
        asked = target(child, child.name)
        content = load.body(asked, "start")
        while True:
            connection = load.Connection(asked)
            try:
                if connection.ask(content)[2].startswith(b"HTTP/1.1 200"):
                    break
            except OSError:
                pass
            finally:
                connection.close()
            if child.process.poll() is not None or time.perf_counter() - began > 120:
                raise SystemExit(f"{child.name} does not start:\n{child.log.read_text()[-2000:]}")
            time.sleep(0.005)
        seconds.append(time.perf_counter() - began)
        time.sleep(2)
        memory.append(resident(asked))
        servers.stop(child)
    return {"seconds": statistics.median(seconds), "memory": statistics.median(memory)}


def resident(asked: Target) -> float:
    """Resident memory of a server's processes in MB."""
    total = 0
    for pid in asked.processes():
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith("VmRSS:"):
                total += int(line.split()[1])
    return total / 1024


def entry_overhead(count: int) -> float:
    """Bytes that the memory tier holds for an entry of an answer like the stub's, beside the stored bytes."""
    tier = MemoryTier(count, 1 << 40, time.time)
    tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0]
    stored = 0
    for number in range(count):
        entry = _entry(number)
        stored += entry.size
        tier.keep(entry)
    held = tracemalloc.get_traced_memory()[0] - before
    tracemalloc.stop()
    if len(tier) != count:
        raise SystemExit("the memory tier did not keep everything")
    return (held - stored) / count


def _entry(number: int) -> Entry:
    """As the life of a request makes it: nothing is shared with the entry before, and token counts are middling."""
    now = time.time() + number / 1000
    words = json.loads('["chat.completions", "gpt-4o-mini", "content-type"]')
    return Entry(
        key=os.urandom(32),
        operation=words[0],
        model=words[1],
        scope="",
        namespace="",
        tags=(),
        created=now,
        expires=now + 86400,
        document=b'{"n":%d,"content":"%b"}' % (number, b"x" * 900),
        headers=((words[2].encode(), b"application/json"),),
        upstream_seconds=number / 7,
        prompt_tokens=10 + number * 7919 % 2000,
        completion_tokens=10 + number * 104729 % 500,
    )
