"""What a row takes in the database's file: more than its bytes, by pages that are not full and by its indexes.

The figures are SQLite's (https://sqlite.org/fileformat2.html#b_tree_pages, pages of 8 KiB); PostgreSQL's are much the
same. ``row_bytes_of`` is ``row_bytes`` for a query.
"""

from typing import Any

from sqlalchemy import ColumnElement, case, literal

#: bytes of a page that hold cells, and of an overflow page that hold data
_PAGE, _CELLS, _OVERFLOW = 8192, 8180, 8188
#: the largest cell that stays whole in a table and in an index, and what stays of a larger one
_TABLE_CELL, _INDEX_CELL, _LEAST = 8157, 2030, 1003
#: a cell's own head and its place in the page's list
_HEAD = 8
#: of a page of an index whose entries come in no order: pages are split in halves
_FILLED = 0.68


def row_bytes(payload: int) -> int:
    """Bytes that a row of ``payload`` bytes takes in its table, whose rows are appended."""
    local, pages = _split(payload, _TABLE_CELL)
    return pages * _PAGE + _PAGE // max(1, _CELLS // (local + _HEAD))


def row_bytes_of(payload: ColumnElement[Any]) -> ColumnElement[Any]:
    """``row_bytes`` in SQL."""
    kept = _LEAST + (payload - _LEAST) % _OVERFLOW
    local = case((payload <= _TABLE_CELL, payload), (kept <= _TABLE_CELL, kept), else_=_LEAST)
    pages = (payload - local + _OVERFLOW - 1) // _OVERFLOW
    cells = case((local + _HEAD > _CELLS // 2, 1), else_=literal(_CELLS) // (local + _HEAD))
    return pages * _PAGE + literal(_PAGE) // cells


def index_bytes(payload: int) -> int:
    """Bytes that an entry of ``payload`` bytes takes in an index that is in no order of time."""
    local, pages = _split(payload, _INDEX_CELL)
    return pages * _PAGE + int((local + _HEAD) / _FILLED)


def _split(payload: int, largest: int) -> tuple[int, int]:
    """Bytes in the cell, and the number of its overflow pages."""
    if payload <= largest:
        return payload, 0
    local = _LEAST + (payload - _LEAST) % _OVERFLOW
    local = local if local <= largest else _LEAST
    return local, -(-(payload - local) // _OVERFLOW)
