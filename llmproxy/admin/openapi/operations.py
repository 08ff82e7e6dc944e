"""The operations of our own routes, by method and path."""

from collections.abc import Mapping

from llmproxy.admin import history
from llmproxy.admin.cache import ORDERS
from llmproxy.admin.cache import PARAMETERS as ENTRY_PARAMETERS
from llmproxy.admin.openapi.json_schema import (
    FLAG,
    OBJECT,
    TEXT,
    WHOLE,
    Schema,
    array,
    choice,
    closed,
    cursor_page,
    members,
    or_null,
    ref,
    whole,
)
from llmproxy.admin.openapi.operation import (
    EVENTS,
    JSON,
    Operation,
    document,
    openai_list,
    openai_paging,
    paging,
    rows,
)
from llmproxy.admin.performance import WINDOWS
from llmproxy.api.batch_input import ENDPOINTS as BATCH_ENDPOINTS
from llmproxy.api.batch_model import WINDOW
from llmproxy.api.chat import PREFIX
from llmproxy.api.file_model import OUTPUTS, PURPOSES
from llmproxy.api.tasks import STATUSES
from llmproxy.jobs.model import JobKind, JobStatus
from llmproxy.wire.endpoints import ENDPOINTS
from llmproxy.wire.vocabulary import CacheStatus

_WHEN = TEXT | {"description": "Unix seconds, or a time like 2026-01-31T12:00:00Z"}
_YES_OR_NO = choice(("true", "false"))
_NAMES = [row.name for row in ENDPOINTS]
_HEX = TEXT | {"pattern": "^[0-9a-fA-F]{1,64}$"}
_NEWEST_FIRST = choice(("asc", "desc"))
_TEXT_ANSWER: Mapping[str, Schema] = {"text/plain": TEXT}

#: parameters of more than one operation, or whose names come from the code that reads them; others are texts
_HISTORY: dict[str, Schema] = {
    **paging(50, 1000),
    "endpoint": choice((*_NAMES, "other")),
    "cache": choice(CacheStatus),
    "status": {"anyOf": [whole(0, 599), choice(("error",))], "description": "`error`: all that failed"},
    "order": choice(history.ORDERS) | {"description": "`slowest` and `tokens` rank the newest that the filters match"},
    "min_seconds": whole(0, 10**9),
    "min_tokens": whole(0, 10**9) | {"description": "of the prompt and the answer together"},
    "since": _WHEN,
    "until": _WHEN,
    "q": TEXT | {"description": "words of prompts and answers"},
    "preview": _YES_OR_NO,
    "bodies": _YES_OR_NO | {"description": "with `format=jsonl` or `csv`"},
    "format": choice(("json", *history.FORMATS)),
}
_ENTRIES: dict[str, Schema] = {
    **paging(50, 500),
    "endpoint": choice(_NAMES),
    "q": TEXT | {"description": "words of the question or the answer"},
    "prefix": _HEX | {"description": "the first digits of a key"},
    "order": choice(ORDERS),
}
_PROMPT_OPTIONS: dict[str, Schema] = {
    "instruction_type": TEXT | {"example": "concise"},
    "model": TEXT,
    "user_id": TEXT,
    "session_id": TEXT,
    "max_tokens": whole(1),
    "temperature": {"type": "number", "minimum": 0, "maximum": 2},
    "webhook_url": TEXT,
}
_METADATA = or_null(OBJECT | {"additionalProperties": TEXT, "maxProperties": 16})
_FLUSH: dict[str, Schema] = {
    "all": {"const": True, "description": "every entry; stands alone"},
    "key": TEXT | {"pattern": "^[0-9a-fA-F]{64}$"},
    "prefix": _HEX,
    "model": TEXT,
    "namespace": TEXT,
    "tags": array(TEXT | {"minLength": 1}, minItems=1),
    "endpoint": choice(_NAMES),
    "older_than": {"type": "number", "minimum": 0, "description": "seconds"},
    "dry_run": FLAG | {"description": "only count"},
}


def _texts(names: tuple[str, ...], special: Mapping[str, Schema]) -> dict[str, Schema]:
    return {name: special.get(name, TEXT) for name in names}


_CACHE = {
    "GET /api/cache/stats": Operation(
        "What the cache holds and what it saved", "cache", answers=document("CacheStats")
    ),
    "GET /admin/cache/entries": Operation(
        "Entries without their bodies", "cache", query=_texts(ENTRY_PARAMETERS, _ENTRIES), answers=rows("EntrySummary")
    ),
    "GET /admin/cache/entries/{key}": Operation(
        "One entry with its answer", "cache", path={"key": _HEX}, answers=document("Entry")
    ),
    "GET /admin/cache/groups": Operation(
        "Entries and bytes by model, namespace, endpoint, tag, size and age", "cache", answers=document("EntrySums")
    ),
    "POST /admin/cache/flush": Operation(
        "Remove the entries that match every selector given",
        "cache",
        body=closed(_FLUSH) | {"minProperties": 1, "example": {"model": "smollm2", "dry_run": True}},
        answers={JSON: members({"flushed": WHOLE, "bytes": WHOLE})},
    ),
}
_HISTORY_OPERATIONS = {
    "GET /api/history": Operation(
        "Requests, newest first; as JSON Lines or CSV all of them",
        "history",
        query=_texts(history.PARAMETERS, _HISTORY),
        answers={JSON: cursor_page(ref("Exchange")), "application/x-ndjson": {}, "text/csv": {}},
    ),
    "DELETE /api/history": Operation(
        "Erase what a user or a session asked",
        "history",
        query={"user_id": TEXT, "session_id": TEXT},
        answers={JSON: members({"deleted": WHOLE})},
    ),
    "GET /api/history/{request_id}": Operation(
        "One request with both bodies and the time of each phase",
        "history",
        query={"row": TEXT | {"pattern": "^[0-9]{1,18}$"}},
        answers=document("ExchangeDetail"),
    ),
    "GET /api/history/{request_id}/explain": Operation(
        "Why it was a hit or not",
        "history",
        query={"row": TEXT | {"pattern": "^[0-9]{1,18}$"}},
        answers=document("Explanation"),
    ),
    "GET /api/sessions": Operation(
        "Sessions with their totals, the last seen first",
        "history",
        query={**paging(50, 1000), "user_id": TEXT},
        answers=rows("Session"),
    ),
    "GET /api/sessions/{id}": Operation("One session with its users", "history", answers=document("SessionDetail")),
    "GET /api/users": Operation(
        "Users with their totals, the last seen first", "history", query=paging(50, 1000), answers=rows("User")
    ),
    "GET /api/users/{id}": Operation("One user with their sessions", "history", answers=document("UserDetail")),
}
_STATUS = {
    "GET /health": Operation("200 while the process lives", "status"),
    "GET /ready": Operation(
        "200 if a model server answers and the database can be used, else 503 with the reason", "status"
    ),
    "GET /metrics": Operation("Metrics for Prometheus", "status", answers=_TEXT_ANSWER),
    "GET /api/health": Operation(
        "Each part of the program with its state; 503 if nothing but hits can be answered",
        "status",
        answers=document("Health"),
    ),
    "GET /api/performance": Operation(
        "Percentiles, rates, hit rate and resources over a window of time",
        "status",
        query={"window": choice(WINDOWS) | {"default": "1h"}},
        answers=document("Performance"),
    ),
    "GET /api/performance/series": Operation(
        "Requests, latencies and savings of a window step by step",
        "status",
        query={"window": choice(WINDOWS) | {"default": "1h"}},
        answers=document("PerformanceSeries"),
    ),
    "GET /v1/models": Operation("The models of all model servers", "status", answers=document("Models")),
    "GET /v1/models/{id}": Operation("One model", "status"),
    "GET /api/tags": Operation("Ollama's list of models", "status"),
    "GET /api/ps": Operation("Ollama's list of loaded models", "status"),
}
_JOBS = {
    "GET /admin/jobs": Operation(
        "Jobs of every caller, newest first",
        "jobs",
        query={"kind": choice(JobKind), "status": choice(JobStatus), **paging(20, 100)},
        answers=rows("Job"),
    ),
    "GET /admin/jobs/{id}": Operation(
        "One job with its first errors", "jobs", query={"errors": whole(0, 1000, 20)}, answers=document("JobDetail")
    ),
    "POST /admin/jobs/{id}/cancel": Operation("Cancel a job", "jobs", answers=document("Job")),
    "POST /admin/jobs/{id}/retry": Operation(
        "Make every call again that was not completed", "jobs", answers=document("Job")
    ),
}
_TASKS = {
    "POST /api/completions": Operation(
        "Answer one prompt, now or in the background as a task (202)",
        "tasks",
        body=closed({"prompt": TEXT | {"minLength": 1}, **_PROMPT_OPTIONS, "background": FLAG}, "prompt"),
    ),
    "POST /api/completions/batch": Operation(
        "Answer many prompts as a task",
        "tasks",
        body=closed({"prompts": array(TEXT | {"minLength": 1}, minItems=1), **_PROMPT_OPTIONS}, "prompts"),
        status=202,
        answers={JSON: members({"task_id": TEXT, "status": TEXT, "total": WHOLE})},
    ),
    "GET /api/tasks": Operation(
        "The caller's tasks, newest first",
        "tasks",
        query={"status": choice(STATUSES), "user_id": TEXT, **paging(20, 100)},
        answers=rows("Task"),
    ),
    "GET /api/tasks/{id}": Operation(
        "One task with its results",
        "tasks",
        query={"limit": whole(1, 1000, 100), "cursor": whole(0)},
        answers=document("TaskDetail"),
    ),
    "DELETE /api/tasks/{id}": Operation("Cancel a task", "tasks", answers=document("TaskDetail")),
    "GET /api/tasks/{id}/events": Operation(
        "Every change of state and every result, as server-sent events", "tasks", answers={EVENTS: TEXT}
    ),
}
_FILES_AND_BATCHES = {
    "POST /v1/files": Operation(
        "Upload a file",
        "files and batches",
        body=members({"file": TEXT | {"format": "binary"}, "purpose": choice(PURPOSES)}),
        body_type="multipart/form-data",
        answers=document("File"),
    ),
    "GET /v1/files": Operation(
        "The caller's files",
        "files and batches",
        query={**openai_paging(10_000, 10_000), "purpose": choice((*PURPOSES, *OUTPUTS)), "order": _NEWEST_FIRST},
        answers=openai_list("File"),
    ),
    "GET /v1/files/{id}": Operation("One file", "files and batches", answers=document("File")),
    "DELETE /v1/files/{id}": Operation("Delete a file", "files and batches", answers=document("Deleted")),
    "GET /v1/files/{id}/content": Operation(
        "The bytes of a file", "files and batches", answers={"application/octet-stream": {}}
    ),
    "POST /v1/batches": Operation(
        "Answer every line of a file",
        "files and batches",
        body=members(
            {
                "input_file_id": TEXT | {"maxLength": 200},
                "endpoint": choice(BATCH_ENDPOINTS),
                "completion_window": choice((WINDOW,)),
                "metadata": _METADATA,
            },
            optional=("metadata",),
        ),
        answers=document("Batch"),
    ),
    "GET /v1/batches": Operation(
        "The caller's batches, newest first", "files and batches", query=openai_paging(), answers=openai_list("Batch")
    ),
    "GET /v1/batches/{id}": Operation("One batch", "files and batches", answers=document("Batch")),
    "POST /v1/batches/{id}/cancel": Operation("Cancel a batch", "files and batches", answers=document("Batch")),
}
_STORED = {
    "GET /v1/responses/{id}": Operation(
        "A stored Response, or the stream of its events if it was made in the background",
        "stored answers",
        query={"stream": choice(("true", "false", "1", "0")), "starting_after": whole(0)},
        answers={JSON: ref("Response"), EVENTS: TEXT},
    ),
    "DELETE /v1/responses/{id}": Operation("Delete a stored Response", "stored answers", answers=document("Deleted")),
    "POST /v1/responses/{id}/cancel": Operation(
        "Cancel a Response of the background", "stored answers", answers=document("Response")
    ),
    "GET /v1/responses/{id}/input_items": Operation(
        "What a Response was asked", "stored answers", query={**openai_paging(), "order": _NEWEST_FIRST}
    ),
    "GET /v1/chat/completions": Operation(
        "The caller's stored chat completions",
        "stored answers",
        query={**openai_paging(), "order": _NEWEST_FIRST, "model": TEXT},
        answers=openai_list("ChatCompletion"),
    ),
    "GET /v1/chat/completions/{id}": Operation(
        "A stored chat completion", "stored answers", answers=document("ChatCompletion")
    ),
    "POST /v1/chat/completions/{id}": Operation(
        "Give a stored chat completion other labels",
        "stored answers",
        path={"id": TEXT | {"pattern": f"^{PREFIX}"}},
        body=members({"metadata": _METADATA}),
        answers=document("ChatCompletion"),
    ),
    "DELETE /v1/chat/completions/{id}": Operation(
        "Delete a stored chat completion", "stored answers", answers=document("Deleted")
    ),
    "GET /v1/chat/completions/{id}/messages": Operation(
        "What a stored chat completion was asked", "stored answers", query={**openai_paging(), "order": _NEWEST_FIRST}
    ),
}

OPERATIONS: Mapping[str, Operation] = {
    **_STATUS,
    **_CACHE,
    **_HISTORY_OPERATIONS,
    **_JOBS,
    **_TASKS,
    **_FILES_AND_BATCHES,
    **_STORED,
}
