import json
from pathlib import Path

import pytest

from llmproxy.config.settings import Settings
from llmproxy.database.engine import Database, open_database
from llmproxy.history.history import NoHistory, history_for
from llmproxy.history.record import Hit
from llmproxy.wire.errors import InternalError
from tests.history.exchanges import FETCHED, fetched


def settings(**changes: object) -> Settings:
    """Whatever the environment says."""
    return Settings.model_validate(changes)


async def test_what_was_recorded_can_be_asked_for_at_once(database: Database) -> None:
    kept = history_for(settings(), database)
    kept.open()
    kept.record([fetched(request_id="a"), fetched(request_id="b", recorded=False), fetched(request_id="c")])
    kept.record_hits(fetched(), [Hit("d", 1.0, 0.5), Hit("e", 2.0, 0.5)])
    kept.record_hits(fetched(recorded=False), [Hit("f", 1.0, 0.5)])
    assert [row["request_id"] for row in await kept.latest(10)] == ["e", "d", "c", "a"]
    assert [row["request_id"] for row in await kept.latest(2)] == ["e", "d"]
    assert await kept.latest(-1) == []
    assert (kept.written, kept.lost) == (4, 0)
    await kept.close(10)


async def test_the_list_is_json_without_bodies(database: Database) -> None:
    kept = history_for(settings(), database)
    kept.open()
    kept.record([FETCHED])
    (row,) = await kept.latest(1)
    assert json.loads(json.dumps(row)) == row
    assert row["id"] == 1
    assert (row["user"], row["session"], row["caller"], row["key"]) == ("u-1", "s-1", "ann", "ab12")
    assert (row["stream"], row["body_bytes"]) == (True, 15)
    assert not {"request_body", "response_body"} & row.keys()
    await kept.close(10)


async def test_bodies_can_be_switched_off(database: Database) -> None:
    kept = history_for(settings(history_bodies=False), database)
    kept.open()
    kept.record([FETCHED])
    assert (await kept.latest(1))[0]["body_bytes"] == 0
    await kept.close(10)


async def test_history_outlives_the_program(tmp_path: Path) -> None:
    url = f"sqlite+aiosqlite:///{tmp_path / 'kept.db'}"
    async with open_database(url) as database:
        kept = history_for(settings(), database)
        kept.open()
        kept.record([fetched(request_id="before")])
        await kept.close(10)
    async with open_database(url) as database:
        kept = history_for(settings(), database)
        assert [row["request_id"] for row in await kept.latest(10)] == ["before"]
        await kept.close(10)


async def test_a_database_that_cannot_be_read_is_an_error_of_ours(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    async with open_database(f"sqlite+aiosqlite:///{tmp_path}/file/history.db") as database:
        kept = history_for(settings(), database)
        with pytest.raises(InternalError, match=r"cannot be read now \(unreachable\)"):
            await kept.latest(1)
        await kept.close(1)


async def test_switched_off_it_keeps_nothing(database: Database) -> None:
    before = database.generation
    nothing = history_for(settings(history=False), database)
    assert isinstance(nothing, NoHistory)
    nothing.open()
    nothing.record([FETCHED])
    nothing.record_hits(FETCHED, [Hit("a", 1.0, 0.5)])
    assert await nothing.latest(10) == []
    assert (nothing.written, nothing.lost) == (0, 0)
    await nothing.close(1)
    assert database.generation == before
