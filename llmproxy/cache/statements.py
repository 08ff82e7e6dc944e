"""The SQL tier's statements, and its rows as values."""

from collections.abc import Iterator, Sequence
from typing import Any

from sqlalchemy import (
    ColumnElement,
    Select,
    and_,
    bindparam,
    delete,
    false,
    func,
    literal_column,
    or_,
    select,
    true,
    update,
)
from sqlalchemy.sql.dml import ReturningDelete

from llmproxy.cache.codec import FORMAT, Packed, tag_text
from llmproxy.cache.entry import Entry
from llmproxy.cache.selection import is_empty, key_range
from llmproxy.cache.tables import entries
from llmproxy.cache.tier import Selector
from llmproxy.database.footprint import index_bytes, row_bytes
from llmproxy.database.sql_dialect import DatabaseDialect

#: keys in one query for several; fewer are filled up, so that the query is compiled only once
MANY = 64

KEY = ("key",)
KEYS = tuple(f"key_{n}" for n in range(MANY))

_readable = entries.c.format == literal_column(str(FORMAT))
_one_key = entries.c.key == bindparam("key")
_many_keys = entries.c.key.in_([bindparam(name) for name in KEYS])
_served = select(entries.c.key, entries.c.used_at, entries.c.digest, entries.c.body)

#: rows (key, used_at, digest, body); what another version wrote in another format is not seen
FIND = _served.where(_one_key, _readable)
FIND_MANY = _served.where(_many_keys, _readable)
#: the first key between two
FIRST = select(entries.c.key).where(entries.c.key.between(bindparam("first"), bindparam("last")), _readable)
FIRST = FIRST.order_by(entries.c.key).limit(1)
#: rows (key,)
HOLDS_MANY = select(entries.c.key).where(_many_keys, _readable)

#: the row of a key, unless it was replaced meanwhile
DISCARD = delete(entries).where(entries.c.key == bindparam("at"), entries.c.digest == bindparam("was"))
TOUCH = update(entries).where(entries.c.key == bindparam("at")).values(used_at=bindparam("now"))

#: one row: number, bytes, time of the oldest
CENSUS = select(func.count(), func.sum(entries.c.size), func.min(entries.c.created_at)).select_from(entries)


def values(entry: Entry, packed: Packed, now: float) -> dict[str, Any]:
    """A row of ``cache_entries``."""
    tags = tag_text(entry.tags)
    return {
        "key": entry.key,
        "operation": entry.operation,
        "model": entry.model,
        "scope": entry.scope,
        "namespace": entry.namespace,
        "tags": tags,
        "created_at": entry.created,
        "expires_at": entry.expires,
        "used_at": now,
        "size": _size(entry, tags, packed),
        "digest": packed.digest,
        "format": packed.format,
        "body": packed.body,
    }


def _size(entry: Entry, tags: str, packed: Packed) -> int:
    """What the row and its entries in the indexes take in the file."""
    searched = sum(len(text.encode()) for text in (entry.model, entry.namespace, entry.operation, tags))
    # beside texts and body: the key, the digest, five numbers and a head; an index entry has the row's number
    row = row_bytes(len(packed.body) + searched + len(entry.scope.encode()) + 112)
    return row + index_bytes(searched + 24) + index_bytes(len(entry.key) + 8) + 2 * index_bytes(28)


def chunks(keys: Sequence[bytes]) -> Iterator[Sequence[bytes]]:
    """``MANY`` keys at a time, the last ones filled up by repeating one."""
    for start in range(0, len(keys), MANY):
        chunk = list(keys[start : start + MANY])
        yield chunk + chunk[-1:] * (MANY - len(chunk))


def chosen(selector: Selector, dialect: DatabaseDialect) -> ColumnElement[bool]:
    """The rows that a selector means: ``selection.matches`` in SQL. Raises ``ValueError`` for a prefix that is none."""
    texts = (selector.model, selector.namespace, selector.endpoint)
    if is_empty(selector) or any("\0" in text for text in texts if text is not None):
        return false()
    given: list[ColumnElement[bool]] = []
    if selector.key is not None:
        given.append(entries.c.key == selector.key)
    if selector.prefix is not None:
        given.append(entries.c.key.between(*key_range(selector.prefix)))
    if selector.model is not None:
        given.append(entries.c.model == selector.model)
    if selector.namespace is not None:
        given.append(entries.c.namespace == selector.namespace)
    if selector.endpoint is not None:
        given.append(entries.c.operation == selector.endpoint)
    if selector.tags:
        possible = [tag for tag in selector.tags if "\0" not in tag and "\n" not in tag]
        given.append(or_(false(), *(dialect.contains(entries.c.tags, tag_text([tag])) for tag in possible)))
    if selector.created_before is not None:
        given.append(entries.c.created_at < selector.created_before)
    return and_(true(), *given)


def count(where: ColumnElement[bool]) -> Select[int, int]:
    """One row: number, bytes."""
    return select(func.count(), func.sum(entries.c.size)).where(where)


def delete_some(
    where: ColumnElement[bool], limit: int, order: ColumnElement[Any] | None = None, *, wait: bool = False
) -> ReturningDelete[int]:
    """Deletes up to ``limit`` rows and returns the size of each. ``wait`` for rows that another process works on;
    else they are left to it."""
    some = select(entries.c.id).where(where).limit(limit).with_for_update(skip_locked=not wait)
    if order is not None:
        some = some.order_by(order)
    return delete(entries).where(entries.c.id.in_(some)).returning(entries.c.size)
