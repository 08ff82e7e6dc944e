"""A request for completions, and tasks and their results as documents. Times are Unix seconds. Pure."""

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

import orjson

from llmproxy.config.settings import Settings
from llmproxy.jobs.model import Item, ItemStatus, Job
from llmproxy.jobs.webhook_urls import LONGEST_URL, webhook_url_for
from llmproxy.upstream.upstreams import Upstreams
from llmproxy.wire.errors import BadRequest, TooLarge
from llmproxy.wire.json_body import parse
from llmproxy.wire.vocabulary import HITS

Fields = dict[str, Any]


def check_known(fields: Fields, allowed: Collection[str]) -> None:
    """Refuses unknown members: a misspelt option would be ignored in silence."""
    # a request may have a million of them
    unknown = sorted(islice((name for name in fields if name not in allowed), 10))
    if unknown:
        names = ", ".join(repr(name[:100]) for name in unknown)
        raise BadRequest(
            f"Unknown fields: {names}. Known are {', '.join(allowed)}.",
            code="unknown_parameter",
            param=unknown[0][:100],
        )


def required_text(fields: Fields, name: str) -> str:
    """A string that says something; it must be there."""
    if fields.get(name) is None:
        raise BadRequest(f"'{name}' is required.", code="missing_required_parameter", param=name)
    return _non_empty(fields[name], f"'{name}'", name)


def required_texts(fields: Fields, name: str) -> list[str]:
    """A list of such strings, at least one."""
    value = fields.get(name)
    if value is None:
        raise BadRequest(f"'{name}' is required.", code="missing_required_parameter", param=name)
    if not isinstance(value, list) or not value:
        raise BadRequest(f"'{name}' must be a list of at least one string.", param=name)
    for index, each in enumerate(value):
        _non_empty(each, f"'{name}[{index}]'", name)
    return value


def word(fields: Fields, name: str, longest: int) -> str:
    """A printable string of up to ``longest`` characters; "" if it is absent."""
    value = fields.get(name)
    if value is None:
        return ""
    if not isinstance(value, str) or len(value) > longest or not value.isprintable():
        raise BadRequest(f"'{name}' must be a string of up to {longest} printable characters.", param=name)
    return value


def flag(fields: Fields, name: str) -> bool:
    """A boolean; false if it is absent."""
    value = fields.get(name)
    if value is not None and not isinstance(value, bool):
        raise BadRequest(f"'{name}' must be true or false.", param=name)
    return bool(value)


def integer(fields: Fields, name: str, least: int, most: int) -> int | None:
    value = fields.get(name)
    if value is None:
        return None
    if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= most:
        raise BadRequest(f"'{name}' must be a whole number from {least} to {most}.", param=name)
    return value


def number(fields: Fields, name: str, least: float, most: float) -> float | None:
    value = fields.get(name)
    if value is None:
        return None
    if not isinstance(value, int | float) or isinstance(value, bool) or not least <= value <= most:
        raise BadRequest(f"'{name}' must be a number from {least:g} to {most:g}.", param=name)
    return value


def _non_empty(value: object, what: str, param: str) -> str:
    if not isinstance(value, str):
        raise BadRequest(f"{what} must be a string.", param=param)
    if not value.strip():
        raise BadRequest(f"{what} must not be empty.", param=param)
    return value


#: characters of a name that goes into the history
LONGEST_NAME = 128
_LONGEST_MODEL = 256
_MOST_TOKENS = 1_000_000_000
#: OpenAI's own bound
_HOTTEST = 2.0

_OPTIONS = (
    "instruction_type",
    "model",
    "user_id",
    "session_id",
    "max_tokens",
    "temperature",
    "webhook_url",
)
_ONE = ("prompt", *_OPTIONS, "background")
_MANY = ("prompts", *_OPTIONS)


@dataclass(frozen=True, slots=True)
class TaskRequest:
    """Prompts and what applies to all of them. "" and None stand for absent members.

    ``instruction`` is the system prompt that ``instruction_type`` names.
    """

    prompts: Sequence[str]
    instruction_type: str
    instruction: str
    model: str
    user: str
    session: str
    max_tokens: int | None
    temperature: float | None
    #: whether the answer is made later
    background: bool
    #: whether the request has one prompt, not a list
    single: bool
    webhook_url: str


def read_single(raw: bytes, settings: Settings) -> TaskRequest:
    """Reads a request to ``/api/completions``. Raises ``BadRequest``."""
    body = parse(raw)
    check_known(body, _ONE)
    prompt, background = required_text(body, "prompt"), flag(body, "background")
    if body.get("webhook_url") is not None and not background:
        raise BadRequest("'webhook_url' needs 'background': true; else the answer is here.", param="webhook_url")
    return _task_request(body, [prompt], settings, background=background, single=True)


def read_many(raw: bytes, settings: Settings) -> TaskRequest:
    """Reads a request to ``/api/completions/batch``. Raises ``BadRequest``, ``TooLarge``."""
    body = parse(raw)
    check_known(body, _MANY)
    prompts, most = body.get("prompts"), settings.job_max_prompts
    if isinstance(prompts, list) and len(prompts) > most:
        raise TooLarge(
            f"'prompts' takes up to {most} prompts (LLMPROXY_JOB_MAX_PROMPTS), not {len(prompts)}.", param="prompts"
        )
    return _task_request(body, required_texts(body, "prompts"), settings, background=True, single=False)


def _task_request(
    body: Fields, prompts: Sequence[str], settings: Settings, *, background: bool, single: bool
) -> TaskRequest:
    kind = word(body, "instruction_type", LONGEST_NAME) or "default"
    instruction = settings.instructions.get(kind)
    if instruction is None:
        raise BadRequest(
            f"'instruction_type' must be one of {', '.join(sorted(settings.instructions))}.", param="instruction_type"
        )
    webhook = word(body, "webhook_url", LONGEST_URL)
    return TaskRequest(
        prompts=prompts,
        instruction_type=kind,
        instruction=instruction,
        model=word(body, "model", _LONGEST_MODEL),
        user=word(body, "user_id", LONGEST_NAME),
        session=word(body, "session_id", LONGEST_NAME),
        max_tokens=integer(body, "max_tokens", 1, _MOST_TOKENS),
        temperature=number(body, "temperature", 0.0, _HOTTEST),
        background=background,
        single=single,
        webhook_url=webhook_url_for(webhook, settings) if background else "",
    )


#: what answers prompts: a cached endpoint
PATH = "/v1/chat/completions"


@dataclass(frozen=True, slots=True)
class ChatAnswer:
    """A chat completion as tasks show it. ``usage`` is the model server's own."""

    response: str | None
    model: str | None
    usage: dict[str, Any] | None


def body_writer(task_request: TaskRequest, model: str) -> Callable[[str], bytes]:
    """Returns the function that makes the chat completion's body of a prompt. ``model`` "" is left out."""
    before = [{"role": "system", "content": task_request.instruction}] if task_request.instruction else []
    options: dict[str, Any] = {"max_tokens": task_request.max_tokens, "temperature": task_request.temperature}
    set_options = {name: value for name, value in options.items() if value is not None}
    named = {"model": model} if model else {}

    def body(prompt: str) -> bytes:
        return orjson.dumps({**named, "messages": [*before, {"role": "user", "content": prompt}], **set_options})

    return body


def read_chat_answer(body: bytes) -> ChatAnswer:
    """Reads a chat completion. A member that is absent, or of another type, is None."""
    document = read(body)
    choices = document.get("choices")
    first = _members(choices[0]) if isinstance(choices, list) and choices else {}
    content, model = _members(first.get("message")).get("content"), document.get("model")
    return ChatAnswer(
        content if isinstance(content, str) else None,
        model if isinstance(model, str) else None,
        _members(document.get("usage")) or None,
    )


def read(body: bytes) -> dict[str, Any]:
    """An answer's document, empty if the answer is not a JSON object."""
    try:
        return _members(orjson.loads(body))
    except orjson.JSONDecodeError:
        return {}


def model_for(task_request: TaskRequest, upstreams: Upstreams) -> str:
    """The request's model, else the first for text that the model servers list, "" while none has been seen yet.

    Raises ``BadRequest`` if they are there and list none.
    """
    if task_request.model or (listed := upstreams.first_model):
        return task_request.model or listed
    if upstreams.ready()[0]:
        raise BadRequest("No 'model' is named, and the model server lists none for text to choose from.", param="model")
    return ""


def _members(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


Document = dict[str, Any]

_NOTHING = ChatAnswer(None, None, None)


def task(job: Job) -> Document:
    """Everything but its results."""
    return {
        "task_id": job.id,
        "status": job.status,
        "progress": progress(job),
        "created_at": job.created_at,
        "started_at": job.started_at,
        "finished_at": job.finished_at,
        "model": job.model or None,
        "instruction_type": job.detail.get("instruction_type"),
        "user_id": job.user_name or None,
        "session_id": job.session or None,
    }


def progress(job: Job) -> Document:
    return {
        "total": job.total,
        "completed": job.completed,
        "failed": job.failed,
        "cancelled": job.cancelled,
        "percent": percent(job.ended, job.total),
    }


def percent(ended: int, total: int) -> float:
    return round(100 * ended / total, 1)


def result(item: Item) -> Document:
    """One prompt's result, or its status."""
    answer = read_chat_answer(item.body) if item.status is ItemStatus.COMPLETED and item.body else _NOTHING
    return {
        "index": item.position,
        "status": "pending" if item.status is ItemStatus.WAITING else item.status,
        "response": answer.response,
        "model": answer.model,
        "cached": from_cache(item.cache),
        "usage": answer.usage,
        "error": {"code": item.error.code, "message": item.error.message} if item.error is not None else None,
        "attempts": item.attempts,
    }


def from_cache(status: str | None) -> bool:
    """Whether an answer of this ``CacheStatus`` was not generated for its request."""
    return status in HITS
