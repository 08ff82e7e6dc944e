"""Putting one JSON object together from the pieces a stream sends of it."""

from collections.abc import Mapping
from typing import Any

_NONE: frozenset[str] = frozenset()


class Deltas:
    """One object in pieces. Names in ``joined`` are texts that are concatenated, names in ``grown`` lists that grow,
    names in ``settled`` keep their first value.

    Of every other name one value is expected: of several the last counts, and ``doubts`` notes that the sender may have
    meant something else. A value that is repeated is no other one, unless it may be a piece (a text or a list, where
    ``pieces`` says that this object comes in pieces). Null, "" and empty lists and objects say nothing, but keep their
    name in the result.
    """

    __slots__ = ("_added", "_doubts", "_grown", "_in_pieces", "_joined", "_pieces", "_settled", "_values")

    def __init__(
        self,
        doubts: list[str],
        *,
        joined: frozenset[str] = _NONE,
        grown: frozenset[str] = _NONE,
        settled: frozenset[str] = _NONE,
        pieces: bool = False,
    ):
        self._doubts = doubts
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
                known = self._values.get(name)
                if isinstance(known, list):
                    known.extend(value)
                else:
                    # a copy: it grows, and the delta is the caller's
                    self._values[name] = list(value)
            else:
                self._set(name, value)

    def _set(self, name: str, value: Any) -> None:
        known = self._values.get(name)
        if name in self._joined:
            self._doubts.append(f"{name} is no text")
        if known in (None, "", [], {}):
            self._values[name] = value
        elif value in ("", [], {}):
            pass
        elif known == value and not (self._in_pieces and name not in self._settled and isinstance(value, str | list)):
            pass
        else:
            self._doubts.append(f"{name} has several values")
            if name not in self._settled:
                self._values[name] = value

    def __bool__(self) -> bool:
        """Whether anything was added, if only an empty object."""
        return self._added

    def result(self) -> dict[str, Any]:
        return self._values | {name: "".join(pieces) for name, pieces in self._pieces.items()}
