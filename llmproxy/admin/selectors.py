"""The body of a flush, read strictly: a typing error must not flush more than was meant."""

import time
from typing import Any

from llmproxy.cache.tier import Selector
from llmproxy.wire.endpoints import ENDPOINTS
from llmproxy.wire.errors import BadRequest

_FIELDS = ("key", "model", "namespace", "tags", "endpoint", "older_than", "prefix")
_HEX = frozenset("0123456789abcdef")


def selector(body: dict[str, Any]) -> Selector:
    """``{"all": true}``, or any of key, prefix, model, namespace, tags, endpoint, older_than (seconds).

    Raises ``BadRequest``.
    """
    given = {name: value for name, value in body.items() if name != "dry_run"}
    if unknown := set(given) - {*_FIELDS, "all"}:
        raise BadRequest(f"Unknown field {sorted(unknown)[0]!r}; a flush takes all, dry_run, {', '.join(_FIELDS)}.")
    if "all" in given:
        if given != {"all": True}:
            raise BadRequest("'all' must be true and stand alone.", param="all")
        return Selector(all=True)
    if not given:
        raise BadRequest("Say what to flush: one or more of " + ", ".join(_FIELDS) + ', or {"all": true}.')
    key = _hex(given, "key")
    if key is not None and len(key) != 64:
        raise BadRequest("'key' must be 64 hex digits; 'prefix' takes fewer.", param="key")
    endpoint = _text(given, "endpoint")
    if endpoint is not None and endpoint not in {row.name for row in ENDPOINTS}:
        names = ", ".join(row.name for row in ENDPOINTS)
        raise BadRequest(f"Unknown endpoint {endpoint[:40]!r}; known are {names}.", param="endpoint")
    age = _age(given)
    if age == 0 and len(given) == 1:
        return Selector(all=True)
    return Selector(
        key=bytes.fromhex(key) if key else None,
        prefix=_hex(given, "prefix"),
        model=_text(given, "model"),
        namespace=_text(given, "namespace"),
        tags=_tags(given),
        endpoint=endpoint,
        # of no age at all is everything, whatever the clock says
        created_before=time.time() - age if age else None,
        older_than=age or None,
    )


def _text(given: dict[str, Any], name: str) -> str | None:
    value = given.get(name)
    if value is not None and not isinstance(value, str):
        raise BadRequest(f"'{name}' must be a string.", param=name)
    return value


def _hex(given: dict[str, Any], name: str) -> str | None:
    value = _text(given, name)
    if value is None:
        return None
    if not value or len(value) > 64 or not set(value.lower()) <= _HEX:
        raise BadRequest(f"'{name}' must be up to 64 hex digits.", param=name)
    return value.lower()


def _tags(given: dict[str, Any]) -> tuple[str, ...]:
    value = given.get("tags", [])
    if isinstance(value, str):
        value = [tag.strip() for tag in value.split(",")]
    if not isinstance(value, list) or not all(isinstance(tag, str) and tag for tag in value):
        raise BadRequest("'tags' must be a list of strings.", param="tags")
    if "tags" in given and not value:
        raise BadRequest("'tags' must name at least one tag.", param="tags")
    return tuple(value)


def _age(given: dict[str, Any]) -> float | None:
    """Seconds."""
    value = given.get("older_than")
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or value < 0:
        raise BadRequest("'older_than' must be a number of seconds.", param="older_than")
    return float(value)
