"""What differs between two JSON values, down to the characters: places, spans, and what a person may overlook. Pure.

Two values without a difference are written the same by ``canonical``, and the other way round.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from difflib import SequenceMatcher
from enum import StrEnum
from typing import Any

import orjson

from llmproxy.history.text_index import compatible

#: tokens of a text that are compared one by one; a longer difference is one span
_MOST_TOKENS = 600
#: equal characters between two spans that are not worth parting them for
_JOINED = 3
_TOKEN = re.compile(r"\w+\s*|[^\w\s]\s*|\s+")
_LONGEST_PATH = 1_000
_IDENTIFIER = re.compile(r"^\w+$")


class DifferenceKind(StrEnum):
    """In what way two values differ at a place."""

    #: only the one has it, only the other has it
    ADDED = "added"
    REMOVED = "removed"
    #: both have it, with another value
    CHANGED = "changed"
    #: both are texts
    TEXT = "text"
    #: the same members, or the same items, in another order
    ORDER = "order"


@dataclass(frozen=True, slots=True)
class Span:
    """Characters ``start`` to ``end`` of the one text stand where the other has ``other_start`` to ``other_end``."""

    start: int
    end: int
    other_start: int
    other_end: int


@dataclass(frozen=True, slots=True)
class Difference:
    """``path`` as in ``messages[0].content``, "" for the values themselves. ``ours`` and ``theirs`` are the values,
    for ``ORDER`` the names or the new order of the items; ``spans`` are of texts. ``note`` says what is easily
    overlooked."""

    path: str
    kind: DifferenceKind
    ours: Any = None
    theirs: Any = None
    spans: tuple[Span, ...] = ()
    note: str = ""


def differences(ours: Any, theirs: Any, path: str = "") -> Iterator[Difference]:
    """From the first place to the last. Values are as ``canonical.parse`` gives them: their numbers keep their form."""
    if isinstance(ours, dict) and isinstance(theirs, dict):
        yield from _members(ours, theirs, path)
    elif isinstance(ours, list) and isinstance(theirs, list):
        yield from _items(ours, theirs, path)
    elif isinstance(ours, str) and isinstance(theirs, str):
        if ours != theirs:
            yield Difference(
                path, DifferenceKind.TEXT, ours, theirs, tuple(spans(ours, theirs)), _overlooked(ours, theirs)
            )
    elif (mine := _written(ours)) != (other := _written(theirs)):
        yield Difference(path, DifferenceKind.CHANGED, ours, theirs, note=_numbers(mine, other))


def _members(ours: Mapping[str, Any], theirs: Mapping[str, Any], path: str) -> Iterator[Difference]:
    for name in ours:
        inner = join(path, name)
        if name in theirs:
            yield from differences(ours[name], theirs[name], inner)
        else:
            yield Difference(inner, DifferenceKind.ADDED, ours=ours[name])
    for name in theirs:
        if name not in ours:
            yield Difference(join(path, name), DifferenceKind.REMOVED, theirs=theirs[name])
    mine, other = [name for name in ours if name in theirs], [name for name in theirs if name in ours]
    if mine != other:
        yield Difference(path, DifferenceKind.ORDER, list(ours), list(theirs), note="the members are in another order")


def _items(ours: list[Any], theirs: list[Any], path: str) -> Iterator[Difference]:
    mine, other = [_written(item) for item in ours], [_written(item) for item in theirs]
    if mine == other:
        return
    if sorted(mine) == sorted(other):
        at = {text: place for place, text in reversed(list(enumerate(other)))}
        order = [at[text] for text in mine]
        yield Difference(
            path, DifferenceKind.ORDER, list(range(len(ours))), order, note="the items are in another order"
        )
        return
    head = common(mine, other)
    tail = common(mine[head:][::-1], other[head:][::-1])
    left, right = ours[head : len(ours) - tail], theirs[head : len(theirs) - tail]
    for place, (one, two) in enumerate(zip(left, right, strict=False), head):
        yield from differences(one, two, f"{path}[{place}]")
    both = min(len(left), len(right))
    for place in range(both, len(left)):
        yield Difference(f"{path}[{head + place}]", DifferenceKind.ADDED, ours=left[place])
    for place in range(both, len(right)):
        yield Difference(f"{path}[{head + place}]", DifferenceKind.REMOVED, theirs=right[place])


def spans(ours: str, theirs: str) -> Iterator[Span]:
    """Where two texts differ, word by word and then to the character; outside of the spans they are the same."""
    head = common(ours, theirs)
    tail = common(ours[head:][::-1], theirs[head:][::-1])
    mine, other = ours[head : len(ours) - tail], theirs[head : len(theirs) - tail]
    last: Span | None = None
    for span in _apart(mine, other, head):
        if last is not None and span.start - last.end <= _JOINED:
            last = Span(last.start, span.end, last.other_start, span.other_end)
            continue
        if last is not None:
            yield last
        last = span
    if last is not None:
        yield last


def _apart(ours: str, theirs: str, at: int) -> Iterator[Span]:
    """The spans of two texts that both begin at the character ``at``."""
    mine, other = _TOKEN.findall(ours), _TOKEN.findall(theirs)
    if max(len(mine), len(other)) > _MOST_TOKENS:
        yield Span(at, at + len(ours), at, at + len(theirs))
        return
    starts, other_starts = _starts(mine, at), _starts(other, at)
    for word, i1, i2, j1, j2 in SequenceMatcher(None, mine, other, autojunk=False).get_opcodes():
        if word != "equal":
            span = Span(starts[i1], starts[i2], other_starts[j1], other_starts[j2])
            yield _narrowed(span, "".join(mine[i1:i2]), "".join(other[j1:j2]))


def _starts(tokens: list[str], at: int) -> list[int]:
    """Where each token begins, and where the last one ends."""
    starts = [at]
    for token in tokens:
        starts.append(starts[-1] + len(token))
    return starts


def _narrowed(span: Span, mine: str, other: str) -> Span:
    head = common(mine, other)
    tail = common(mine[head:][::-1], other[head:][::-1])
    return Span(span.start + head, span.end - tail, span.other_start + head, span.other_end - tail)


def common(ours: Any, theirs: Any) -> int:
    """How many items two sequences have in common at their beginning."""
    low, high = 0, min(len(ours), len(theirs))
    # halving compares slices at once, which is quicker than item by item
    while low < high:
        middle = (low + high + 1) // 2
        if ours[low:middle] == theirs[low:middle]:
            low = middle
        else:
            high = middle - 1
    return low


def join(path: str, name: str) -> str:
    """The path of a member. Of very long ones the end is left: as a whole they would cost the square of a body."""
    if len(path) + len(name) > _LONGEST_PATH:
        path, name = path[-_LONGEST_PATH // 2 :], name[-_LONGEST_PATH // 2 :]
    if not _IDENTIFIER.match(name):
        return f"{path}[{orjson.dumps(name).decode()}]"
    return f"{path}.{name}" if path else name


def _written(value: Any) -> str:
    return orjson.dumps(value).decode()


def _numbers(ours: str, theirs: str) -> str:
    try:
        return "the same number, written in another way" if float(ours) == float(theirs) else ""
    except ValueError:
        return ""


def _overlooked(ours: str, theirs: str) -> str:
    if "".join(ours.split()) == "".join(theirs.split()):
        return "only white space differs"
    if compatible(ours) == compatible(theirs):
        return "the same letters in another Unicode form"
    return "only upper and lower case differ" if ours.casefold() == theirs.casefold() else ""
