"""What the description says of one route beside its path, its method and who may use it."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from llmproxy.admin.openapi.json_schema import OBJECT, TEXT, Schema, cursor_page, id_page, ref, whole

JSON = "application/json"
EVENTS = "text/event-stream"


@dataclass(frozen=True, slots=True)
class Operation:
    """``query``, ``headers`` and ``path`` are parameters by name. ``body`` is the request's schema, None for no body;
    ``answers`` are the schemas of a success by content type, and ``status`` is its status."""

    summary: str
    tag: str = "other"
    query: Mapping[str, Schema] = field(default_factory=dict)
    headers: Mapping[str, Schema] = field(default_factory=dict)
    path: Mapping[str, Schema] = field(default_factory=dict)
    body: Schema | None = None
    body_type: str = JSON
    answers: Mapping[str, Schema] = field(default_factory=lambda: {JSON: OBJECT})
    status: int = 200
    description: str = ""


def document(name: str) -> Mapping[str, Schema]:
    """An answer that is one of the documents in ``components``."""
    return {JSON: ref(name)}


def rows(name: str) -> Mapping[str, Schema]:
    """A page of one of our lists of such documents."""
    return {JSON: cursor_page(ref(name))}


def openai_list(name: str) -> Mapping[str, Schema]:
    """A page of one of OpenAI's lists of such documents."""
    return {JSON: id_page(ref(name))}


def paging(default: int, most: int) -> dict[str, Schema]:
    """The parameters of one of our lists."""
    return {"limit": whole(1, most, default), "cursor": TEXT | {"description": "the `next` of the page before"}}


def openai_paging(default: int = 20, most: int = 100) -> dict[str, Schema]:
    """The parameters of one of OpenAI's lists."""
    return {"limit": whole(1, most, default), "after": TEXT | {"description": "the `last_id` of the page before"}}
