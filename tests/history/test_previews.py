"""What the requests of a page ask, on every kind of database."""

import json

import pytest

from llmproxy.database.engine import Database
from llmproxy.history import detail
from llmproxy.history.record import Recorder
from llmproxy.history.search import HistoryQuery, page
from tests.history.exchanges import fetched
from tests.history.keeping import write


def body(text: str, *, before: int = 0, after: int = 0) -> bytes:
    messages = [{"role": "system", "content": "s" * before}, {"role": "user", "content": text}]
    return json.dumps({"messages": messages, "tools": [{"description": "t" * after}]}).encode()


async def lines(database: Database) -> list[str]:
    """Of all rows, the oldest first."""
    ids = [row["id"] for row in (await page(database, HistoryQuery(limit=1000))).rows]
    found = await detail.previews(database, ids)
    return [found.get(id, "") for id in sorted(ids)]


async def test_each_row_has_its_own(database: Database) -> None:
    bodies = [body("first"), b"", b"no JSON", body("é\n?"), body("first")]
    await write(database, [fetched(request_body=each) for each in bodies])
    assert await lines(database) == ["first", "", "", "é ?", "first"]


async def test_of_a_long_body_its_beginning_and_its_end_are_read(database: Database) -> None:
    far = 2 * (detail.HEAD + detail.TAIL)
    bodies = [
        body("at the end", before=far),
        body("at the beginning", after=far),
        body("between", before=far, after=far),
    ]
    await write(database, [fetched(request_body=each) for each in bodies], Recorder(10_000_000))
    assert await lines(database) == ["at the end", "at the beginning", ""]


async def test_where_no_bodies_are_kept_there_is_nothing_to_read(database: Database) -> None:
    await write(database, [fetched(request_body=body("first"))], Recorder(None))
    assert await lines(database) == [""]


async def test_a_page_reads_only_so_much(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(detail, "BATCH", 2)
    monkeypatch.setattr(detail, "MOST_BYTES", 3 * len(body("1")))
    await write(database, [fetched(request_body=body(str(number))) for number in range(9)])
    found = await detail.previews(database, range(9, 0, -1))
    assert found == {9: "8", 8: "7", 7: "6", 6: "5"}
