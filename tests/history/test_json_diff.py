import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmproxy.history.json_diff import Difference, DifferenceKind, Span, differences, spans
from llmproxy.wire.json_body import canonical, parse

WORD = st.sampled_from(["a", "b", "role", "x y", ""])
LEAF = st.none() | st.booleans() | st.integers(-3, 3) | st.sampled_from([0.5, 1.0, 1e30, 2**70]) | WORD
JSON = st.recursive(
    LEAF, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(WORD, inner, max_size=4), max_leaves=12
)
#: few letters, so that two texts have much in common
TEXT = st.text(alphabet="ab \n", max_size=40)


def between(ours: str, theirs: str) -> list[Difference]:
    return list(differences(parse(ours.encode()), parse(theirs.encode())))


@given(JSON, JSON)
@settings(max_examples=500, deadline=None)
def test_two_values_differ_exactly_when_their_keys_do(ours: Any, theirs: Any) -> None:
    one, two = (parse(json.dumps({"value": value}).encode()) for value in (ours, theirs))
    assert (list(differences(one, two)) == []) == (canonical(one, ()) == canonical(two, ()))


@given(JSON)
@settings(max_examples=100, deadline=None)
def test_nothing_differs_from_itself(value: Any) -> None:
    body = json.dumps({"value": value}).encode()
    assert list(differences(parse(body), parse(body))) == []


@given(TEXT, TEXT)
@settings(max_examples=500, deadline=None)
def test_outside_of_the_spans_two_texts_are_the_same(ours: str, theirs: str) -> None:
    rebuilt, at, last = "", 0, None
    for span in spans(ours, theirs):
        assert span.end > span.start or span.other_end > span.other_start
        assert last is None or (span.start > last.end and span.other_start > last.other_end)
        rebuilt += ours[at : span.start]
        assert len(rebuilt) == span.other_start
        rebuilt += theirs[span.other_start : span.other_end]
        at, last = span.end, span
    assert rebuilt + ours[at:] == theirs


def test_the_differing_characters_are_found_wherever_they_are() -> None:
    ours = "Today is 2026-01-31, 10:31:02. " + "the same words " * 50 + "Run 7."
    theirs = "Today is 2026-01-31, 10:31:59. " + "the same words " * 50 + "Run 8."
    first, second = spans(ours, theirs)
    assert first == Span(27, 29, 27, 29)
    assert (ours[second.start : second.end], theirs[second.other_start : second.other_end]) == ("7", "8")


def test_what_is_missing_is_an_empty_span() -> None:
    assert list(spans("a b", "a new b")) == [Span(2, 2, 2, 6)]


def test_long_texts_that_have_little_in_common_are_one_span() -> None:
    ours, theirs = "a" + " x1" * 5_000 + "b", "a" + " y2" * 5_000 + "b"
    assert list(spans(ours, theirs)) == [Span(2, 15_001, 2, 15_001)]


def test_paths_lead_to_the_place() -> None:
    found = between(
        '{"messages": [{"role": "user", "content": "hi"}, {"content": [{"text": "a"}]}], "odd name": {"x-y": 1}}',
        '{"messages": [{"role": "user", "content": "ho"}, {"content": [{"text": "b"}]}], "odd name": {"x-y": 2}}',
    )
    assert [(each.path, each.kind) for each in found] == [
        ("messages[0].content", DifferenceKind.TEXT),
        ("messages[1].content[0].text", DifferenceKind.TEXT),
        ('["odd name"]["x-y"]', DifferenceKind.CHANGED),
    ]


def test_what_only_one_has() -> None:
    found = between('{"a": 1, "list": [1, 2, 5]}', '{"b": null, "list": [1, 5]}')
    assert [(each.path, each.kind, each.ours, each.theirs) for each in found] == [
        ("a", DifferenceKind.ADDED, 1, None),
        ("list[1]", DifferenceKind.ADDED, 2, None),
        ("b", DifferenceKind.REMOVED, None, None),
    ]


@pytest.mark.parametrize(
    ("ours", "theirs", "path", "kind", "note"),
    [
        (
            '{"x": {"a": 1, "b": 2}}',
            '{"x": {"b": 2, "a": 1}}',
            "x",
            DifferenceKind.ORDER,
            "the members are in another order",
        ),
        (
            '{"tools": ["a", "b"]}',
            '{"tools": ["b", "a"]}',
            "tools",
            DifferenceKind.ORDER,
            "the items are in another order",
        ),
        ('{"x": [1]}', '{"x": [1.0]}', "x[0]", DifferenceKind.CHANGED, "the same number, written in another way"),
        ('{"x": "a b"}', '{"x": "a  b"}', "x", DifferenceKind.TEXT, "only white space differs"),
        ('{"x": "Hi"}', '{"x": "hI"}', "x", DifferenceKind.TEXT, "only upper and lower case differ"),
        (
            '{"x": "caf\u00e9"}',
            '{"x": "cafe\u0301"}',
            "x",
            DifferenceKind.TEXT,
            "the same letters in another Unicode form",
        ),
        ('{"x": 1}', '{"x": "1"}', "x", DifferenceKind.CHANGED, ""),
        ('{"x": true}', '{"x": false}', "x", DifferenceKind.CHANGED, ""),
    ],
)
def test_what_is_easily_overlooked_is_said(ours: str, theirs: str, path: str, kind: DifferenceKind, note: str) -> None:
    (found,) = between(ours, theirs)
    assert (found.path, found.kind, found.note) == (path, kind, note)


def test_the_new_order_of_items_is_told() -> None:
    (found,) = between('{"x": ["a", "b", "c"]}', '{"x": ["c", "a", "b"]}')
    assert (found.ours, found.theirs) == ([0, 1, 2], [1, 2, 0])


def test_what_the_key_takes_as_equal_is_no_difference() -> None:
    assert between('{"a": 1, "b": 0.5}', '{"a": 1.0, "b": 5e-1}') == []
