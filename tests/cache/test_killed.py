"""SIGKILL in the middle of writing: the file is sound, and every entry in it is whole."""

import asyncio
import contextlib
import signal
import sqlite3
import sys
from pathlib import Path

from llmproxy.cache.sql import SqlTier
from llmproxy.database.engine import open_database
from tests.cache.entries import Faults, key, streamed
from tests.clock import Clock
from tests.databases import sqlite_url

WRITE = """
import asyncio, sys
from llmproxy.cache.sql import SqlTier
from llmproxy.database.write_behind import WriteLimits
from llmproxy.database.engine import open_database
from tests.cache.entries import Faults, streamed
from tests.clock import Clock

async def main():
    async with open_database(sys.argv[1]) as database:
        await database.verify()
        limits = WriteLimits(linger=0.001, group_items=20)
        async with SqlTier(database, compress_from=1024, clock=Clock(), on_fault=Faults(), limits=limits) as tier:
            for number in range(100_000):
                tier.keep(streamed(number % 2000, size=20_000))
                if number % 100 == 0:
                    await tier.drained()
                    print(number, flush=True)

asyncio.run(main())
"""


async def test_killed_in_the_middle_of_writing(sqlite_file: Path) -> None:
    url = sqlite_url(sqlite_file)
    for round_ in range(3):
        process = await asyncio.create_subprocess_exec(sys.executable, "-c", WRITE, url, stdout=asyncio.subprocess.PIPE)
        assert process.stdout is not None
        for _ in range(4 + round_):
            assert await process.stdout.readline()
        process.send_signal(signal.SIGKILL)
        await process.communicate()
        with contextlib.closing(sqlite3.connect(sqlite_file)) as connection:
            assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        async with open_database(url) as database:
            await database.verify()
            tier = SqlTier(database, compress_from=1024, clock=Clock(), on_fault=Faults(), census_seconds=0)
            async with tier:
                keys = {key(number): number for number in range(2000)}
                found = await tier.get_many(list(keys))
                assert len(found) == (await tier.stats()).entries >= 300
                assert all(each == streamed(keys[each.key], size=20_000) for each in found.values())
                assert (await tier.stats()).evictions["broken"] == 0
