"""Tool calls in pieces: which piece belongs to which call, and what cannot be told."""

from typing import Any

import pytest

from llmproxy.wire.formats.deltas import ToolCalls

Piece = dict[str, Any]


def piece(arguments: Any = None, *, name: str | None = "f", **members: Any) -> Piece:
    function = {key: value for key, value in (("name", name), ("arguments", arguments)) if value is not None}
    return {**members, "function": function}


def put_together(*deltas: list[Piece]) -> tuple[list[tuple[Any, Any]], bool]:
    """Id and arguments of each call, and whether that is certain."""
    doubts: list[str] = []
    calls = ToolCalls(doubts)
    for delta in deltas:
        calls.add(delta)
    found = [(call.get("id"), call["function"].get("arguments")) for call in calls.result()]
    return found, not doubts


ROME, OSLO = '{"city":"Rome"}', '{"city":"Oslo"}'
BOTH = [("a", ROME), ("b", OSLO)]


@pytest.mark.parametrize(
    "deltas",
    [
        [[piece(ROME, index=0, id="a")], [piece(OSLO, index=1, id="b")]],
        [[piece(ROME, index=0, id="a")], [piece(OSLO, index=0, id="b")]],
        [[piece(ROME, index=0, id="a"), piece(OSLO, index=0, id="b")]],
        [[piece(ROME, id="a"), piece(OSLO, id="b")]],
        [[piece(ROME, id="a")], [piece(OSLO, id="b")]],
        [[piece(ROME, index=None, id="a")], [piece(OSLO, index=None, id="b")]],
        [[piece("", index=0, id="a")], [piece(ROME, name=None, index=0)], [piece(OSLO, index=0, id="b")]],
        [
            [piece("", index=0, id="a")],
            [piece(ROME[:5], name=None, index=0)],
            [piece("", index=1, id="b")],
            [piece(ROME[5:], name=None, index=0), piece(OSLO, name=None, index=1)],
        ],
        [[piece(ROME[:5], index=0, id="a")], [piece(ROME[5:], index=0, id="a")], [piece(OSLO, index=1, id="b")]],
        [[piece(ROME[:5], id="a")], [piece(ROME[5:], name=None)], [piece(OSLO, id="b")]],
        [[piece(ROME[:5], id="a")], [piece(ROME[5:], name=None, id="")], [piece(OSLO, id="b")]],
        [[piece(None, index=0)], [piece(ROME, name=None, index=0, id="a")], [piece(OSLO, index=1, id="b")]],
        # ids count within their index
        [[piece(OSLO, index=1, id="b")], [piece(ROME, index=0, id="a")]],
    ],
)
def test_calls_that_can_be_told_apart(deltas: list[list[Piece]]) -> None:
    assert put_together(*deltas) == (BOTH, True)


def test_calls_with_one_id_are_told_apart_by_their_index() -> None:
    deltas = [[piece(ROME, index=0, id="same")], [piece(OSLO, index=1, id="same")]]
    assert put_together(*deltas) == ([("same", ROME), ("same", OSLO)], True)


def test_a_call_that_was_cut_off_is_no_doubt() -> None:
    deltas = [[piece(ROME, index=0, id="a")], [piece(OSLO[:5], index=0, id="b")]]
    assert put_together(*deltas) == ([("a", ROME), ("b", OSLO[:5])], True)


@pytest.mark.parametrize(
    "deltas",
    [
        # whole calls with neither id nor a number of their own
        [[piece(ROME, index=0)], [piece(OSLO, index=0)]],
        [[piece(ROME)], [piece(OSLO)]],
        [[piece(ROME, index=None), piece(OSLO, index=None)]],
        # the same for everything
        [[piece(ROME, index=0, id="a")], [piece(OSLO, index=0, id="a")]],
        [[piece(ROME, id="a")], [piece(OSLO, id="a")]],
        # a piece that may belong to either
        [[piece("", index=0, id="a"), piece("", index=0, id="b")], [piece('{"c', name=None, index=0)], [piece(ROME)]],
        [[piece("{", id="a")], [piece("{", id="b")], [piece("}", name=None)]],
        [[piece(ROME, id="a")], [piece(OSLO, name=None)]],
        # another name for the same call
        [[piece("", index=0, id="a", name="f")], [piece(ROME, index=0, id="a", name="g")]],
        [[piece("", index=0, name="f")], [piece(ROME, index=0, id="a", name="g")]],
        # arguments that are no text, and numbers that are none
        [[piece({"city": "Rome"}, index=0, id="a")]],
        [[piece(ROME, index="0", id="a")]],
        [["call"]],
    ],
)
def test_calls_that_cannot_be_told_apart_are_doubted(deltas: list[list[Piece]]) -> None:
    assert not put_together(*deltas)[1]


def test_numbers_are_shown_where_the_server_shows_them() -> None:
    calls = ToolCalls([])
    calls.add([piece(ROME, index=0, id="a"), piece(OSLO, index=1, id="b")])
    assert [call["index"] for call in calls.result(numbered=True)] == [0, 1]
    assert all("index" not in call for call in calls.result())


@pytest.mark.parametrize("index", [True, False])
def test_each_of_very_many_calls_costs_the_same(index: bool) -> None:
    """Looked for among all others, so many would take minutes."""
    many = 40_000
    deltas = [[piece("{}", id=f"call-{n}", index=n) if index else piece("{}", id=f"call-{n}")] for n in range(many)]
    found, certain = put_together(*deltas)
    assert certain
    assert found == [(f"call-{n}", "{}") for n in range(many)]


def test_an_id_that_is_no_text_is_told_apart_too() -> None:
    found, _ = put_together([piece(ROME, index=0, id=["a"]), piece(OSLO, index=0, id={"b": 1})])
    assert found == [(["a"], ROME), ({"b": 1}, OSLO)]


def test_calls_without_a_number_keep_their_place() -> None:
    calls = ToolCalls([])
    calls.add([piece(ROME, index=5, id="a"), piece(OSLO, id="b")])
    assert [call["id"] for call in calls.result()] == ["a", "b"]
    assert [call.get("index") for call in calls.result(numbered=True)] == [5, None]


def test_calls_are_in_the_order_of_their_numbers() -> None:
    calls = ToolCalls([])
    calls.add([piece(OSLO, index=1, id="b"), piece(ROME, index=0, id="a")])
    assert [call["id"] for call in calls.result()] == ["a", "b"]


def test_a_function_that_is_no_object_is_a_member_like_others() -> None:
    calls = ToolCalls([])
    calls.add([{"index": 0, "id": "a", "function": "f"}])
    assert calls.result() == [{"id": "a", "function": "f"}]
