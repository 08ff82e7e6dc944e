"""Keyset pagination: an order of rows, the page behind a row of it, and the cursor that stands for that row.

A cursor is a text that callers give back without looking into it.
"""

from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Sequence
from typing import Any, TypeVar

import orjson
from sqlalchemy import ColumnElement, Select, literal, tuple_

from llmproxy.wire.errors import BadRequest

T = TypeVar("T")

#: what every database takes for a number
_LARGEST = 2**63 - 1


class Keyset:
    """An order by ``columns``, which together tell any two rows apart: descending, or ``ascending``.

    An index over the same columns makes each page cost the same, however far back it is.
    """

    def __init__(self, *columns: ColumnElement[Any], ascending: bool = False) -> None:
        self.columns = columns
        self._ascending = ascending
        self._kinds = [column.type.python_type for column in columns]

    def behind(self, values: Sequence[Any]) -> ColumnElement[bool]:
        """The rows behind the one that has these values, or expressions, in the columns."""
        here = tuple_(*self.columns)
        there = tuple_(*(value if isinstance(value, ColumnElement) else literal(value) for value in values))
        return here > there if self._ascending else here < there

    def page(self, query: Select[Any], limit: int, after: Sequence[Any] | None = None) -> Select[Any]:
        """The first rows of ``query`` in this order, or those behind ``after``: ``limit`` and one more, for ``cut``."""
        if after is not None:
            query = query.where(self.behind(after))
        order = (column if self._ascending else column.desc() for column in self.columns)
        return query.order_by(*order).limit(limit + 1)

    def read(self, text: str) -> list[Any]:
        """The values that ``cursor`` made the text of. Raises ``BadRequest`` for any other text."""
        try:
            found = orjson.loads(urlsafe_b64decode(text.encode() + b"=" * (-len(text) % 4)))
        except ValueError:
            found = None
        if not isinstance(found, list) or [type(value) for value in found] != self._kinds or not all(map(_fits, found)):
            raise BadRequest("'cursor' must be what an earlier page gave as 'next'.", param="cursor")
        return found


def cursor(values: Sequence[object]) -> str:
    """The text that stands for a row with these values in the columns of its order."""
    return urlsafe_b64encode(orjson.dumps(list(values))).decode().rstrip("=")


def cut(rows: Sequence[T], limit: int) -> tuple[list[T], T | None]:
    """The rows of a page of which one more was read, and the last of them if there is another page."""
    return list(rows[:limit]), rows[limit - 1] if len(rows) > limit else None


def _fits(value: Any) -> bool:
    """Whether a row may hold it: no database takes other numbers, nor PostgreSQL a text with a NUL."""
    return "\0" not in value if isinstance(value, str) else -_LARGEST <= value <= _LARGEST
