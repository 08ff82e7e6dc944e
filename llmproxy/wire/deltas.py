"""Putting one JSON object together from the pieces a stream sends of it."""

from collections.abc import Mapping
from typing import Any

_NONE: frozenset[str] = frozenset()


class Deltas:
    """One object in pieces. Names in ``joined`` are concatenated, names in ``settled`` keep their first value.

    Of every other name the last value counts, and lists grow. A null says nothing, but keeps its name in the result.
    """

    __slots__ = ("_added", "_joined", "_pieces", "_settled", "_values")

    def __init__(self, joined: frozenset[str] = _NONE, settled: frozenset[str] = _NONE):
        self._joined = joined
        self._settled = settled
        self._added = False
        self._values: dict[str, Any] = {}
        self._pieces: dict[str, list[str]] = {}

    def add(self, delta: Mapping[str, Any]) -> None:
        self._added = True
        values = self._values
        for name, value in delta.items():
            if value is None:
                values.setdefault(name, None)
            elif name in self._joined and isinstance(value, str):
                values.setdefault(name, None)
                self._pieces.setdefault(name, []).append(value)
            elif name in self._settled:
                if values.get(name) is None:
                    values[name] = value
            elif isinstance(value, list):
                known = values.get(name)
                if isinstance(known, list):
                    known.extend(value)
                else:
                    # a copy: it grows, and the delta is the caller's
                    values[name] = list(value)
            else:
                values[name] = value

    def __bool__(self) -> bool:
        """Whether anything was added, if only an empty object."""
        return self._added

    def result(self) -> dict[str, Any]:
        return self._values | {name: "".join(pieces) for name, pieces in self._pieces.items()}
