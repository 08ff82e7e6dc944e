import json
from pathlib import Path

import pytest

from llmproxy.config.settings import Settings
from llmproxy.database.engine import Database, open_database
from llmproxy.history import history as module
from llmproxy.history.history import History, NoHistory, history_for
from llmproxy.history.search import HistoryQuery
from llmproxy.wire.errors import BadRequest, NotFound, Unavailable
from llmproxy.wire.exchange import RepeatHit
from tests.history.exchanges import FETCHED, fetched

TEXT = (("hello",),)


def settings(**changes: object) -> Settings:
    """Whatever the environment says."""
    return Settings.model_validate(changes)


async def ids(kept: History, limit: int = 10) -> list[str]:
    return [row["request_id"] for row in (await kept.reader.page(HistoryQuery(limit))).rows]


async def test_what_was_recorded_can_be_asked_for_at_once(database: Database) -> None:
    kept = history_for(settings(), database)
    kept.open()
    kept.record([fetched(request_id="a"), fetched(request_id="b", recorded=False), fetched(request_id="c")])
    hits = [RepeatHit(FETCHED, "d", 1_700_000_001.0, 0.5), RepeatHit(FETCHED, "e", 1_700_000_002.0, 0.5)]
    kept.record_hits(fetched(), hits)
    kept.record_hits(fetched(recorded=False), [RepeatHit(FETCHED, "f", 1.0, 0.5)])
    assert await ids(kept) == ["e", "d", "c", "a"]
    assert await ids(kept, 2) == ["e", "d"]
    assert (await kept.reader.session("s-1"))["requests"] == 4
    assert (kept.written, kept.lost) == (4, 0)
    await kept.close(10)


async def test_a_text_is_found_right_after_the_answer(database: Database) -> None:
    kept = history_for(settings(), database)
    kept.open()
    for number in range(3):
        kept.record([fetched(request_id=str(number), request_body=b'{"prompt": "Hello!"}')])
        page = await kept.reader.page(HistoryQuery(10, text=TEXT))
        assert len(page.rows) == number + 1
        assert await kept.reader.indexed(HistoryQuery(10, text=TEXT))
    await kept.close(10)


@pytest.mark.parametrize("switch", ["history_search", "history_bodies"])
async def test_without_an_index_a_text_is_refused(database: Database, switch: str) -> None:
    kept = history_for(settings(**{switch: False}), database)
    kept.open()
    kept.record([FETCHED])
    assert len((await kept.reader.page(HistoryQuery(10))).rows) == 1
    with pytest.raises(BadRequest, match="not indexed"):
        await kept.reader.page(HistoryQuery(10, text=TEXT))
    await kept.close(10)


async def test_the_list_is_json_without_bodies(database: Database) -> None:
    kept = history_for(settings(), database)
    kept.open()
    kept.record([FETCHED])
    (row,) = (await kept.reader.page(HistoryQuery(1))).rows
    assert json.loads(json.dumps(row)) == row
    assert row["id"] == 1
    assert (row["user"], row["session"], row["caller"], row["key"]) == ("u-1", "s-1", "ann", "ab12")
    assert (row["stream"], row["body_bytes"], row["namespace"]) == (True, 15, "n-1")
    assert not {"request_body", "response_body", "detail"} & row.keys()
    await kept.close(10)


async def test_bodies_can_be_switched_off(database: Database) -> None:
    kept = history_for(settings(history_bodies=False), database)
    kept.open()
    kept.record([FETCHED])
    assert (await kept.reader.page(HistoryQuery(1))).rows[0]["body_bytes"] == 0
    await kept.close(10)


async def test_what_must_not_be_kept_is_nowhere(database: Database) -> None:
    kept = history_for(settings(history_redact=[r"[\w.]+@[\w.]+"]), database)
    kept.open()
    kept.record([fetched(request_body=b'{"prompt": "mail\\nbob@example.com hello"}', response_body=b"bob@example.com")])
    row = (await kept.reader.page(HistoryQuery(1, text=TEXT), bodies=True)).rows[0]
    assert row["request_body"] == b'{"prompt": "mail\\n[redacted] hello"}'
    assert row["response_body"] == b"[redacted]"
    assert (await kept.reader.page(HistoryQuery(1, text=(("bob",),)))).rows == []
    await kept.close(10)


async def test_history_outlives_the_program(tmp_path: Path) -> None:
    url = f"sqlite+aiosqlite:///{tmp_path / 'kept.db'}"
    async with open_database(url) as database:
        kept = history_for(settings(), database)
        kept.open()
        kept.record([fetched(request_id="before", request_body=b'{"prompt": "hello"}')])
        await kept.close(10)
    async with open_database(url) as database:
        kept = history_for(settings(), database)
        kept.open()
        assert await ids(kept) == ["before"]
        # what was left to be done is done now
        assert (await kept.reader.user("u-1"))["requests"] == 1
        assert len((await kept.reader.page(HistoryQuery(10, text=TEXT))).rows) == 1
        await kept.close(10)


async def test_a_database_that_cannot_be_read_is_an_error_of_ours(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    async with open_database(f"sqlite+aiosqlite:///{tmp_path}/file/history.db") as database:
        kept = history_for(settings(), database)
        with pytest.raises(Unavailable, match=r"cannot be read now \(unreachable\)"):
            await kept.reader.page(HistoryQuery(1))
        await kept.close(1)


async def test_switched_off_it_keeps_nothing(database: Database) -> None:
    before = database.generation
    nothing = history_for(settings(history=False), database)
    assert isinstance(nothing, NoHistory)
    nothing.open()
    nothing.record([FETCHED])
    nothing.record_hits(FETCHED, [RepeatHit(FETCHED, "a", 1.0, 0.5)])
    with pytest.raises(NotFound, match="LLMPROXY_HISTORY"):
        _ = nothing.reader
    assert (nothing.written, nothing.lost) == (0, 0)
    await nothing.close(1)
    assert database.generation == before


async def test_who_is_erased_has_no_rows_waiting(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "ERASE_SECONDS", 0.01)
    kept = history_for(settings(), database)
    kept.record([fetched(user="ann"), fetched(user="bob")])
    # nobody writes yet
    with pytest.raises(Unavailable, match="None was erased"):
        await kept.reader.erase("ann", None)
    monkeypatch.setattr(module, "ERASE_SECONDS", 30.0)
    kept.open()
    assert await kept.reader.erase("ann", None) == 1
    assert [row["user"] for row in (await kept.reader.page(HistoryQuery(10))).rows] == ["bob"]
    await kept.close(10)


async def test_texts_are_asked_for_as_they_are_kept(database: Database) -> None:
    """With what no database takes, and longer than what is kept."""
    name = "a\0b" + "c" * 2_000
    kept = history_for(settings(), database)
    kept.open()
    kept.record([fetched(request_id=name, user=name, session=name, model=name)])
    for wanted in (HistoryQuery(10, user=name), HistoryQuery(10, session=name), HistoryQuery(10, model=name)):
        assert len((await kept.reader.page(wanted)).rows) == 1
    assert (await kept.reader.record(name))["user_name"].startswith("abc")
    assert (await kept.reader.user(name))["requests"] == (await kept.reader.session(name))["requests"] == 1
    assert len((await kept.reader.sessions(10, None, name))["data"]) == 1
    assert await kept.reader.erase(name, name) == 1
    await kept.close(10)
