"""Which entries a selector means: asked of an entry in memory, written to the flush log, read from it."""

import dataclasses

import orjson

from llmproxy.cache.entry import Entry
from llmproxy.cache.tier import Selector

_DIGITS = 64


def matches(selector: Selector, entry: Entry) -> bool:
    """Whether every given field matches; a selector without any matches nothing.

    Raises ``ValueError`` for a prefix that is none.
    """
    if is_empty(selector):
        return False
    if selector.prefix is not None:
        low, high = key_range(selector.prefix)
        if not low <= entry.key <= high:
            return False
    return (
        selector.key in (None, entry.key)
        and selector.model in (None, entry.model)
        and selector.namespace in (None, entry.namespace)
        and selector.endpoint in (None, entry.operation)
        and (not selector.tags or not set(selector.tags).isdisjoint(entry.tags))
        and (selector.created_before is None or entry.created < selector.created_before)
    )


def is_empty(selector: Selector) -> bool:
    """Whether nothing was asked for at all."""
    return selector == Selector()


def key_range(prefix: str) -> tuple[bytes, bytes]:
    """The first and the last key that begin with these hex digits. Raises ``ValueError`` for other characters."""
    if len(prefix) > _DIGITS or not all(digit in "0123456789abcdefABCDEF" for digit in prefix):
        raise ValueError(f"{prefix!r} is not the beginning of a key: up to {_DIGITS} hex digits")
    return bytes.fromhex(prefix.ljust(_DIGITS, "0")), bytes.fromhex(prefix.ljust(_DIGITS, "f"))


def means_begun(selector: Selector, entry: Entry, seconds: float) -> bool:
    """Whether a flush means an answer whose call had begun ``seconds`` before the flush."""
    if selector.created_before is None:
        return matches(selector, entry)
    if seconds < (selector.older_than or 0.0):
        return False
    ageless = dataclasses.replace(selector, created_before=None, older_than=None)
    return is_empty(ageless) or matches(ageless, entry)


def dump(selector: Selector) -> str:
    """JSON, for the flush log."""
    fields = dataclasses.asdict(selector)
    fields["key"] = selector.key.hex() if selector.key is not None else None
    return orjson.dumps(fields).decode()


def load(text: str) -> Selector:
    """The inverse of ``dump``. A line that another version wrote and this one can not read means every entry."""
    try:
        fields = orjson.loads(text)
        if fields["key"] is not None:
            fields["key"] = bytes.fromhex(fields["key"])
        fields["tags"] = tuple(fields["tags"])
        return Selector(**fields)
    except (ValueError, TypeError, KeyError):
        return Selector(all=True)
