"""Objects and tool calls, put together from the deltas of a stream.

Servers differ in tool calls: OpenAI numbers them and sends each in pieces, Ollama and others send whole calls, some of
them all with the same number, without one, or with null. A new id begins a new call. ``ambiguities`` collects what
cannot be decided.
"""

from collections import Counter
from collections.abc import Hashable, Mapping, Sequence
from json import JSONDecodeError, JSONDecoder
from typing import Any

_NONE: frozenset[str] = frozenset()


class Deltas:
    """One object in pieces. Names in ``joined`` are texts to concatenate, names in ``grown`` lists to extend, names in
    ``settled`` keep their first value.

    Every other name has one value: of several the last counts, and ``ambiguities`` notes that the sender may have meant
    something else. A repeated value is the same value, unless it may be a piece (a text or a list, if ``pieces`` says
    that this object comes in pieces). Null, "" and empty lists and objects add nothing, but their name stays in the
    result.
    """

    __slots__ = ("_added", "_ambiguities", "_grown", "_in_pieces", "_joined", "_pieces", "_settled", "_values")

    def __init__(
        self,
        ambiguities: list[str],
        *,
        joined: frozenset[str] = _NONE,
        grown: frozenset[str] = _NONE,
        settled: frozenset[str] = _NONE,
        pieces: bool = False,
    ):
        self._ambiguities = ambiguities
        self._joined = joined
        self._grown = grown
        self._settled = settled
        self._in_pieces = pieces
        self._added = False
        self._values: dict[str, Any] = {}
        self._pieces: dict[str, list[str]] = {}

    def add(self, delta: Mapping[str, Any]) -> None:
        self._added = True
        for name, value in delta.items():
            if value is None:
                self._values.setdefault(name, None)
            elif name in self._joined and isinstance(value, str):
                self._values.setdefault(name, None)
                self._pieces.setdefault(name, []).append(value)
            elif name in self._grown and isinstance(value, list):
                current = self._values.get(name)
                if isinstance(current, list):
                    current.extend(value)
                else:
                    # a copy: it grows, and the delta is the caller's
                    self._values[name] = list(value)
            else:
                self._set(name, value)

    def add_text(self, name: str, text: str) -> None:
        """``add`` for a piece of one text whose name is in ``joined``."""
        self._added = True
        if name not in self._values:
            self._values[name] = None
        if (pieces := self._pieces.get(name)) is None:
            pieces = self._pieces[name] = []
        pieces.append(text)

    def _set(self, name: str, value: Any) -> None:
        current = self._values.get(name)
        if name in self._joined:
            self._ambiguities.append(f"{name} is no text")
        if current in (None, "", [], {}):
            self._values[name] = value
        elif value in ("", [], {}):
            pass
        elif current == value and not (self._in_pieces and name not in self._settled and isinstance(value, str | list)):
            pass
        else:
            self._ambiguities.append(f"{name} has several values")
            if name not in self._settled:
                self._values[name] = value

    def __bool__(self) -> bool:
        """Whether anything was added, if only an empty object."""
        return self._added

    def result(self) -> dict[str, Any]:
        return self._values | {name: "".join(pieces) for name, pieces in self._pieces.items()}


#: the long text of each kind of call
LONG = {"function": "arguments", "custom": "input"}

_DECODER = JSONDecoder()
#: stands for every index
_ANY = "any"


class ToolCalls:
    """The unfinished calls of one message, in the order in which they began."""

    __slots__ = ("_ambiguities", "_calls", "_places")

    def __init__(self, ambiguities: list[str]) -> None:
        self._ambiguities = ambiguities
        self._calls: list[_ToolCall] = []
        #: index, or index and id -> the youngest call with them: looked up, so that many calls cost no more each
        self._places: dict[Hashable, int] = {}

    def __bool__(self) -> bool:
        return bool(self._calls)

    def add(self, pieces: Sequence[Any]) -> None:
        for piece in pieces:
            if isinstance(piece, dict):
                self._of(piece).add(piece)
            else:
                self._ambiguities.append("a tool call is no object")

    def result(self, *, numbered: bool = False) -> list[dict[str, Any]]:
        """``numbered`` keeps each call's index, as Ollama's plain answers do."""
        calls = self._calls
        numbers = Counter(call.index for call in calls)
        for call in calls:
            alone = call.index is not None and numbers[call.index] == 1
            if not alone and not call.is_whole and call is not calls[-1]:
                self._ambiguities.append("it is not clear which tool call an argument belongs to")
            if call.is_several and (call.beginnings > 1 or not alone):
                self._ambiguities.append("several tool calls came as one")
        if all(isinstance(call.index, int) for call in calls):
            # the numbers are the order; calls that share one keep theirs
            calls = sorted(calls, key=lambda call: call.index or 0)
        return [call.result(numbered=numbered) for call in calls]

    def _of(self, piece: dict[str, Any]) -> "_ToolCall":
        """The call to which a piece belongs."""
        index, id = piece.get("index"), piece.get("id") or None
        if index is not None and (isinstance(index, bool) or not isinstance(index, int)):
            self._ambiguities.append("the index of a tool call is no number")
            index = None
        call = self._last(index)
        if id is not None:
            # an id may come after the beginning
            nameless = call if call is not None and call.id is None and index is not None else None
            call = self._last(index, _hashable(id)) or nameless
        elif call is not None and index is None and _is_named(piece):
            self._ambiguities.append("a tool call has neither id nor index")
            call = None
        if call is None:
            call = _ToolCall(index, len(self._calls), self._ambiguities)
            self._calls.append(call)
            self._note(call)
        elif _is_named(piece) and call.beginnings and (id is None or call.id != id):
            self._ambiguities.append("a tool call begins again")
        if id is not None:
            self._note(call, _hashable(id))
        return call

    def _last(self, index: int | None, *id: Hashable) -> "_ToolCall | None":
        """The youngest call that a piece with this index, and this id, may continue."""
        keys = [(_ANY, *id)] if index is None else [(index, *id), (None, *id)]
        place = max(self._places.get(key, -1) for key in keys)
        return self._calls[place] if place >= 0 else None

    def _note(self, call: "_ToolCall", *id: Hashable) -> None:
        for key in ((_ANY, *id), (call.index, *id)):
            self._places[key] = max(call.place, self._places.get(key, -1))


class _ToolCall:
    """One unfinished call. Some servers repeat its id and name in every delta: the first ones count."""

    __slots__ = ("_kinds", "_members", "beginnings", "id", "index", "place")

    def __init__(self, index: int | None, place: int, ambiguities: list[str]) -> None:
        self.index = index
        #: how many calls began before it
        self.place = place
        self.id: Any = None
        #: pieces with a name: more than one if every piece repeats it, or if several calls look like one
        self.beginnings = 0
        self._members = Deltas(ambiguities, settled=frozenset({"id", "type"}), pieces=True)
        self._kinds = {
            kind: Deltas(ambiguities, joined=frozenset({long}), settled=frozenset({"name"}), pieces=True)
            for kind, long in LONG.items()
        }

    def add(self, piece: dict[str, Any]) -> None:
        self.id = self.id or piece.get("id") or None
        self.beginnings += _is_named(piece)
        members = {}
        for name, value in piece.items():
            if name in self._kinds and isinstance(value, dict):
                self._kinds[name].add(value)
            elif name != "index":
                members[name] = value
        self._members.add(members)

    @property
    def is_whole(self) -> bool:
        """Whether the arguments are one JSON value, or empty."""
        arguments = self._arguments
        return not arguments.strip() or _end(arguments) == len(arguments.rstrip())

    @property
    def is_several(self) -> bool:
        """Whether a whole JSON value in the arguments is followed by more. A cut one is only unfinished."""
        end = _end(self._arguments)
        return end is not None and end < len(self._arguments.rstrip())

    @property
    def _arguments(self) -> str:
        arguments = self._kinds["function"].result().get("arguments")
        return arguments if isinstance(arguments, str) else ""

    def result(self, *, numbered: bool) -> dict[str, Any]:
        call = self._members.result() | {name: kind.result() for name, kind in self._kinds.items() if kind}
        return call | {"index": self.index} if numbered and self.index is not None else call


def _hashable(id: Any) -> Hashable:
    """Ids are texts; any other value of a server is compared by its representation."""
    return id if isinstance(id, str) else repr(id)


def _is_named(piece: dict[str, Any]) -> bool:
    return any(isinstance(body := piece.get(kind), dict) and body.get("name") for kind in LONG)


def _end(text: str) -> int | None:
    """Where the JSON value at the beginning of ``text`` ends, None if there is none."""
    try:
        return _DECODER.raw_decode(text, len(text) - len(text.lstrip()))[1]
    except (JSONDecodeError, RecursionError):
        return None
