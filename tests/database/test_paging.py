"""Pages of rows, each behind the last row of the one before, on each database."""

import pytest
from sqlalchemy import insert, literal, select

from llmproxy.database.engine import Database
from llmproxy.database.paging import Keyset, cursor, cut
from llmproxy.history.tables import marks
from llmproxy.wire.errors import BadRequest

ROWS = [("a", 1), ("b", 3), ("c", 2), ("d", 3), ("e", 1)]


@pytest.fixture
async def filled(database: Database) -> Database:
    async with database.write() as connection:
        await connection.execute(insert(marks), [{"name": name, "seen": seen} for name, seen in ROWS])
    return database


async def pages(database: Database, order: Keyset, limit: int) -> list[list[str]]:
    found: list[list[str]] = []
    after: list[object] | None = None
    while True:
        async with database.read() as connection:
            query = order.page(select(marks.c.name, marks.c.seen), limit, after)
            rows, last = cut((await connection.execute(query)).all(), limit)
        found.append([row.name for row in rows])
        if last is None:
            return found
        after = order.read(cursor([getattr(last, column.name) for column in order.columns]))


@pytest.mark.parametrize(
    ("ascending", "expected"),
    [(False, [["d", "b"], ["c", "e"], ["a"]]), (True, [["a", "e"], ["c", "b"], ["d"]])],
)
async def test_each_row_is_on_one_page(filled: Database, ascending: bool, expected: list[list[str]]) -> None:
    assert await pages(filled, Keyset(marks.c.seen, marks.c.name, ascending=ascending), 2) == expected


async def test_a_page_that_ends_with_the_last_row_is_the_last(filled: Database) -> None:
    assert await pages(filled, Keyset(marks.c.name), 5) == [["e", "d", "c", "b", "a"]]


async def test_the_row_behind_which_a_page_begins_can_be_an_expression(filled: Database) -> None:
    seen = select(marks.c.seen).where(marks.c.name == "c").scalar_subquery()
    order = Keyset(marks.c.seen, marks.c.name)
    async with filled.read() as connection:
        query = select(marks.c.name).where(order.behind([seen, literal("c")]))
        assert set((await connection.execute(query)).scalars()) == {"a", "e"}


@pytest.mark.parametrize(
    "text",
    ["", "x", "\u00e9", cursor([1]), cursor(["1", "a"]), cursor([1, "a", 2]), cursor([2**63, "a"]), cursor([1, "\0"])],
)
def test_another_cursor_is_refused(text: str) -> None:
    with pytest.raises(BadRequest, match="cursor"):
        Keyset(marks.c.seen, marks.c.name).read(text)


def test_a_cursor_says_what_it_was_made_of() -> None:
    assert Keyset(marks.c.seen, marks.c.name).read(cursor([7, "é"])) == [7, "é"]
