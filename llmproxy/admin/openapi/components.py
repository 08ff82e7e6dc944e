"""Schemas of the documents that answers hold: ``components/schemas`` of the description.

Rows of tables, dataclasses and closed lists are read from the code that defines them.
"""

from pydantic import TypeAdapter

from llmproxy.admin.openapi.json_schema import (
    ANY,
    FLAG,
    NUMBER,
    OBJECT,
    TEXT,
    TIME,
    WHOLE,
    Schema,
    array,
    choice,
    json_type,
    members,
    or_null,
    ref,
)
from llmproxy.api.batch_model import STATUS as BATCH_STATUS
from llmproxy.api.tasks import STATUSES as TASK_STATUSES
from llmproxy.cache.browse import EntrySummary, EntrySums
from llmproxy.history.search import COLUMNS, NAMES
from llmproxy.history.tables import history
from llmproxy.jobs.model import JobKind, JobStatus

_TOTALS = {
    "first_seen": TIME,
    "last_seen": TIME,
    **dict.fromkeys(("requests", "hits", "errors", "prompt_tokens", "completion_tokens"), WHOLE),
    "hit_rate": or_null(NUMBER),
    "saved_seconds": NUMBER,
}
_SESSION = members({"session": TEXT, "user": TEXT, **_TOTALS}, optional=("user",))
_USER = members({"user": TEXT, **_TOTALS})
_BODY = members({"body": ANY, "bytes": WHOLE, "cut": FLAG})
_PART = members({"state": choice(("ok", "degraded", "down", "off")), "last_error": or_null(TEXT)})
_CODE_AND_MESSAGE = members({"code": TEXT, "message": TEXT})
_COUNTS = members(
    {
        **dict.fromkeys(("hits", "stale", "misses", "joins", "bypasses", "only_if_cached"), WHOLE),
        "hit_rate": or_null(NUMBER),
    }
)
_SAVED = members({"upstream_seconds": NUMBER, "prompt_tokens": WHOLE, "completion_tokens": WHOLE})
_PROGRESS = dict.fromkeys(("total", "completed", "failed", "cancelled"), WHOLE) | {"percent": NUMBER}
_ERROR = members({"message": TEXT, "type": TEXT, "param": or_null(TEXT), "code": ANY})

#: of a cached answer, whichever tier it is in
_ENTRY = {
    "key": TEXT,
    "endpoint": TEXT,
    "model": TEXT,
    "namespace": TEXT,
    "tags": array(TEXT),
    "created": TIME,
    "expires": TIME,
    "bytes": WHOLE,
    "streamed": FLAG,
    "upstream_seconds": NUMBER,
    "prompt_tokens": or_null(WHOLE),
    "completion_tokens": or_null(WHOLE),
    "document": {"description": "the answer itself"},
}
#: of a cached answer, as far as the history knows it
_USE = {
    "question": or_null(TEXT),
    "hits": or_null(WHOLE),
    "last_used": TIME,
    "request_id": or_null(TEXT),
    "exchange": or_null(WHOLE),
}


def exchange_row() -> dict[str, Schema]:
    """The members of an exchange in a list: the columns of the history's table."""
    columns = {NAMES.get(column.name, column.name): column for column in history.columns}
    # a column's name is a text of SQLAlchemy's own kind, which cannot be written as JSON
    types = {str(name): json_type(columns[name].type.python_type) for name in COLUMNS}
    return {name: or_null(schema) if columns[name].nullable else schema for name, schema in types.items()}


def _task() -> dict[str, Schema]:
    return {
        "task_id": TEXT,
        "status": choice(TASK_STATUSES),
        "progress": members(_PROGRESS),
        "created_at": TIME,
        "started_at": or_null(TIME),
        "finished_at": or_null(TIME),
        "model": or_null(TEXT),
        "instruction_type": or_null(TEXT),
        "user_id": or_null(TEXT),
        "session_id": or_null(TEXT),
    }


def _job() -> dict[str, Schema]:
    return {
        "id": TEXT,
        "kind": choice(JobKind),
        "status": choice(JobStatus),
        **dict.fromkeys(("path", "model", "caller", "user", "session"), TEXT),
        "created_at": TIME,
        **{name: or_null(TIME) for name in ("started_at", "finished_at", "expires_at")},
        "progress": members(_PROGRESS | {"expired": WHOLE}),
        "hits": WHOLE,
        "tokens": members(dict.fromkeys(("prompt", "completion", "cached", "reasoning"), WHOLE)),
        "error": or_null(_CODE_AND_MESSAGE),
    }


def _batch() -> Schema:
    ends = ("in_progress", "expires", "finalizing", "completed", "failed", "expired", "cancelling", "cancelled")
    return members(
        {
            "id": TEXT,
            "object": {"const": "batch"},
            "endpoint": TEXT,
            "status": choice(BATCH_STATUS.values()),
            "input_file_id": TEXT,
            "output_file_id": or_null(TEXT),
            "error_file_id": or_null(TEXT),
            "completion_window": TEXT,
            "created_at": WHOLE,
            **{f"{end}_at": or_null(WHOLE) for end in ends},
            "request_counts": members(dict.fromkeys(("total", "completed", "failed"), WHOLE)),
            "errors": or_null(OBJECT),
            "usage": or_null(OBJECT),
            "metadata": or_null(OBJECT),
        }
    )


def schemas() -> dict[str, Schema]:
    """All of them by name. Takes some milliseconds."""
    return _errors() | _history() | _cache() | _figures() | _jobs() | _openai()


def _errors() -> dict[str, Schema]:
    return {
        "Error": members({"error": _ERROR}),
        "OllamaError": members({"error": TEXT}),
        "AnthropicError": members(
            {
                "type": {"const": "error"},
                "error": members({"type": TEXT, "message": TEXT}),
                "request_id": or_null(TEXT),
            }
        ),
        "Problem": members({"type": TEXT, "title": TEXT, "status": WHOLE, "detail": TEXT, "error": _ERROR}),
    }


def _history() -> dict[str, Schema]:
    row = exchange_row()
    return {
        "Exchange": members(row | {"preview": TEXT}, optional=("preview",)),
        "ExchangeDetail": members(
            row
            | {
                "identity": TEXT,
                "scope": TEXT,
                "query": or_null(TEXT),
                "phases": OBJECT | {"additionalProperties": NUMBER},
                "request": _BODY,
                "response": _BODY,
            }
        ),
        "Explanation": members(
            {
                "request_id": TEXT,
                "cache": TEXT,
                "reason": TEXT,
                "because": array(TEXT),
                "key": OBJECT,
                "nearest": or_null(OBJECT),
                "compared": WHOLE,
                "differences": array(OBJECT),
            }
        ),
        "Session": _SESSION,
        "SessionDetail": _with(_SESSION, users=array(ref("Session"))),
        "User": _USER,
        "UserDetail": _with(_USER, sessions=array(ref("Session"))),
    }


def _cache() -> dict[str, Schema]:
    return {
        "EntrySummary": _with(TypeAdapter(EntrySummary).json_schema(mode="serialization"), **_USE),
        "EntrySums": _without_references(TypeAdapter(EntrySums).json_schema(mode="serialization")),
        "Entry": members(_ENTRY | _USE),
        "CacheStats": members(
            {
                **dict.fromkeys(("since_start", "last_5_minutes", "last_60_minutes"), _COUNTS),
                "saved": _SAVED,
                "tiers": OBJECT | {"additionalProperties": OBJECT},
                "oldest": or_null(TIME),
            }
        ),
    }


def _figures() -> dict[str, Schema]:
    return {
        "Performance": members(
            {
                "window": TEXT,
                "complete": FLAG,
                "from": TIME,
                "until": TIME,
                "seconds": NUMBER,
                "quantile_error": NUMBER,
                "total": OBJECT,
                "models": array(OBJECT),
                "all_time": or_null(OBJECT),
                "now": OBJECT,
            }
        ),
        "PerformanceSeries": members(
            {"window": TEXT, "complete": FLAG, "step_seconds": WHOLE, "data": array(members({"at": TIME}))}
        ),
        "Health": members(
            {
                "status": choice(("ok", "degraded", "down")),
                "version": TEXT,
                "database": _PART,
                "cache": OBJECT | {"additionalProperties": _PART},
                "queue": _PART,
                "upstreams": array(_PART),
            }
        ),
    }


def _jobs() -> dict[str, Schema]:
    task, job = _task(), _job()
    result = {
        "index": WHOLE,
        "status": TEXT,
        "response": or_null(TEXT),
        "model": or_null(TEXT),
        "cached": FLAG,
        "usage": or_null(OBJECT),
        "error": or_null(_CODE_AND_MESSAGE),
        "attempts": WHOLE,
    }
    return {
        "Job": members(job),
        "JobDetail": members(job | {"attempts": WHOLE, "errors": array(OBJECT)}),
        "Task": members(task),
        "TaskDetail": members(
            task
            | {
                "attempts": WHOLE,
                "results": array(members(result)),
                "next": or_null(WHOLE),
                "result": or_null(OBJECT),
            },
            optional=("result",),
        ),
    }


def _openai() -> dict[str, Schema]:
    return {
        "Batch": _batch(),
        "File": members(
            {
                "id": TEXT,
                "object": {"const": "file"},
                "bytes": WHOLE,
                "created_at": WHOLE,
                "expires_at": or_null(WHOLE),
                "filename": TEXT,
                "purpose": TEXT,
                "status": TEXT,
            }
        ),
        "Deleted": members({"id": TEXT, "object": TEXT, "deleted": {"const": True}}),
        "ChatCompletion": members({"id": TEXT, "object": {"const": "chat.completion"}, "choices": array(OBJECT)}),
        "Response": members({"id": TEXT, "object": {"const": "response"}, "status": TEXT, "output": array(OBJECT)}),
        "Models": members({"object": {"const": "list"}, "data": array(OBJECT)}),
    }


def _with(schema: Schema, **members: Schema) -> Schema:
    return schema | {
        "properties": schema["properties"] | members,
        "required": [*schema["required"], *members],
    }


def _without_references(schema: Schema) -> Schema:
    """``schema`` with its only definition in the place of each reference to it."""
    (definition,) = schema.pop("$defs").values()
    for each in schema["properties"].values():
        each["items"] = definition
    return schema
