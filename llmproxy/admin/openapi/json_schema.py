"""Builders for JSON Schema, draft 2020-12. A schema is a dict, ready to be written as JSON."""

from collections.abc import Iterable, Mapping
from enum import StrEnum
from typing import Any

Schema = dict[str, Any]

TEXT: Schema = {"type": "string"}
WHOLE: Schema = {"type": "integer"}
NUMBER: Schema = {"type": "number"}
FLAG: Schema = {"type": "boolean"}
ANY: Schema = {}
OBJECT: Schema = {"type": "object"}
TIME: Schema = {"type": "number", "description": "Unix seconds"}

_JSON_TYPES = {str: "string", int: "integer", float: "number", bool: "boolean"}


def json_type(python_type: type) -> Schema:
    """The schema of a column's or a field's type."""
    return {"type": _JSON_TYPES[python_type]}


def or_null(schema: Schema) -> Schema:
    """What ``schema`` takes, or null."""
    if "type" in schema:
        return schema | {"type": [schema["type"], "null"]}
    return {"anyOf": [schema, {"type": "null"}]}


def choice(values: Iterable[str]) -> Schema:
    """One of some texts. Members of a ``StrEnum`` count as their values."""
    return {"type": "string", "enum": [value.value if isinstance(value, StrEnum) else value for value in values]}


def whole(least: int, most: int | None = None, default: int | None = None) -> Schema:
    """A whole number within bounds, both included."""
    bounds = {"minimum": least, "maximum": most, "default": default}
    return WHOLE | {name: value for name, value in bounds.items() if value is not None}


def array(items: Schema, **more: Any) -> Schema:
    return {"type": "array", "items": items, **more}


def members(properties: Mapping[str, Schema], *, optional: Iterable[str] = ()) -> Schema:
    """An object. Members are required unless they are ``optional``; there may be others."""
    left_out = set(optional)
    required = [name for name in properties if name not in left_out]
    return {"type": "object", "properties": dict(properties), **({"required": required} if required else {})}


def closed(properties: Mapping[str, Schema], *required: str) -> Schema:
    """An object that takes these members only: what a request may say."""
    schema: Schema = {"type": "object", "properties": dict(properties), "additionalProperties": False}
    return schema | ({"required": list(required)} if required else {})


def ref(name: str) -> Schema:
    """A schema of the description's own, by its name in ``components``."""
    return {"$ref": f"#/components/schemas/{name}"}


def cursor_page(items: Schema) -> Schema:
    """A page of one of our lists. ``next`` is the cursor of the page after it."""
    return members({"object": {"const": "list"}, "data": array(items), "next": or_null(TEXT)})


def id_page(items: Schema) -> Schema:
    """A page of one of OpenAI's lists: ``last_id`` is the ``after`` of the page behind it."""
    ids = {"first_id": or_null(TEXT), "last_id": or_null(TEXT), "has_more": FLAG}
    return members({"object": {"const": "list"}, "data": array(items), **ids})
