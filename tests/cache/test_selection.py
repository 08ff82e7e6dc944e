"""A selector means the same in memory and in every database; it survives the flush log."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import insert, select

from llmproxy.cache.entry import Packer
from llmproxy.cache.sql import chosen, values
from llmproxy.cache.tables import entries
from llmproxy.cache.tier import Selector, dump, key_range, load, matches, matches_begun
from llmproxy.database.engine import Database
from tests.cache.entries import entry, key

KEPT = [
    entry(0, model="a", namespace="x", tags=("red", "blue"), created=10.0),
    entry(1, model="b", namespace="x", tags=("Red",), created=20.0, operation="embeddings"),
    entry(2, model="a", namespace="y", tags=("reds", "tired"), created=30.0),
    entry(3, model="A", namespace="", created=40.0, operation="embeddings"),
    entry(4, model="100%_", namespace="_%", tags=("%", "_"), created=50.0),
]

CASES: list[tuple[dict[str, Any], set[int]]] = [
    ({}, set()),
    ({"all": True}, {0, 1, 2, 3, 4}),
    ({"all": True, "created_before": 25.0}, {0, 1}),
    ({"key": key(2)}, {2}),
    ({"key": key(77)}, set()),
    ({"prefix": key(3).hex()[:9]}, {3}),
    ({"prefix": key(3).hex().upper()}, {3}),
    ({"prefix": ""}, {0, 1, 2, 3, 4}),
    ({"model": "a"}, {0, 2}),
    ({"model": ""}, set()),
    ({"model": "a", "namespace": "x"}, {0}),
    ({"namespace": ""}, {3}),
    ({"namespace": "_%"}, {4}),
    ({"tags": ("red",)}, {0}),
    ({"tags": ("blue", "Red")}, {0, 1}),
    ({"tags": ("%",)}, {4}),
    ({"tags": ("red\nblue",)}, set()),
    ({"tags": ("\0",)}, set()),
    ({"model": "\0"}, set()),
    ({"endpoint": "embeddings"}, {1, 3}),
    ({"endpoint": "embeddings", "created_before": 40.0}, {1}),
]


@pytest.mark.parametrize(("fields", "meant"), CASES)
def test_in_memory(fields: dict[str, Any], meant: set[int]) -> None:
    assert {number for number, kept in enumerate(KEPT) if matches(Selector(**fields), kept)} == meant


async def test_in_the_database(database: Database) -> None:
    packer = Packer(0)
    async with database.write() as connection:
        await connection.execute(insert(entries), [values(kept, packer.pack(kept), 1.0) for kept in KEPT])
    keys = [kept.key for kept in KEPT]
    for fields, meant in CASES:
        async with database.read() as connection:
            rows = await connection.execute(select(entries.c.key).where(chosen(Selector(**fields), database.dialect)))
            assert {keys.index(found) for found in rows.scalars()} == meant, fields


@pytest.mark.parametrize("prefix", ["xyz", "0" * 65, "a-", "٣"])
def test_a_prefix_that_is_none(prefix: str) -> None:
    with pytest.raises(ValueError, match="hex digits"):
        key_range(prefix)


@given(
    st.builds(
        Selector,
        all=st.booleans(),
        key=st.none() | st.binary(min_size=32, max_size=32),
        prefix=st.none() | st.text("0123456789abcdef", max_size=8),
        model=st.none() | st.text(st.characters(codec="utf-8")),
        tags=st.lists(st.text(st.characters(codec="utf-8")), max_size=3).map(tuple),
        created_before=st.none() | st.floats(0, 1e10),
    )
)
def test_the_log_keeps_a_selector(selector: Selector) -> None:
    assert load(dump(selector)) == selector


@pytest.mark.parametrize(
    "text", ["", "{}", "[]", "null", '{"key": 5}', '{"of": "the future", "key": null, "tags": []}']
)
def test_a_line_of_another_version_means_everything(text: str) -> None:
    assert load(text) == Selector(all=True)


@pytest.mark.parametrize(
    ("selector", "seconds", "meant"),
    [
        (Selector(all=True), 0.0, True),
        (Selector(model="m"), 0.0, True),
        (Selector(model="another"), 100.0, False),
        (Selector(created_before=0.0, older_than=5.0), 6.0, True),
        (Selector(created_before=0.0, older_than=5.0), 4.0, False),
        (Selector(model="m", created_before=0.0, older_than=5.0), 6.0, True),
        (Selector(model="another", created_before=0.0, older_than=5.0), 6.0, False),
        # as versions wrote it that knew only the time: rather too much than too little
        (Selector(created_before=0.0), 0.0, True),
    ],
)
def test_an_answer_on_its_way_is_as_old_as_its_call(selector: Selector, seconds: float, meant: bool) -> None:
    assert matches_begun(selector, entry(1), seconds) is meant
