"""What a request for completions orders: its JSON, checked before anything is done or kept."""

from collections.abc import Sequence
from dataclasses import dataclass

from llmproxy.config.settings import Settings
from llmproxy.jobs.tasks import task_fields
from llmproxy.jobs.tasks.task_fields import Fields
from llmproxy.jobs.webhooks.allow import LONGEST_URL, told
from llmproxy.wire.errors import BadRequest, TooLarge
from llmproxy.wire.json_body import parse

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
class Order:
    """Prompts and what goes for all of them. "" and None stand for what was not said.

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
    #: whether it was asked for as one prompt, not as a list
    single: bool
    webhook_url: str


def one(raw: bytes, settings: Settings) -> Order:
    """The order in a request to ``/api/completions``. Raises ``BadRequest``."""
    body = parse(raw)
    task_fields.only(body, _ONE)
    prompt, background = task_fields.text(body, "prompt"), task_fields.flag(body, "background")
    if body.get("webhook_url") is not None and not background:
        raise BadRequest("'webhook_url' needs 'background': true; else the answer is here.", param="webhook_url")
    return _order(body, [prompt], settings, background=background, single=True)


def many(raw: bytes, settings: Settings) -> Order:
    """The order in a request to ``/api/completions/batch``. Raises ``BadRequest``, ``TooLarge``."""
    body = parse(raw)
    task_fields.only(body, _MANY)
    prompts, most = body.get("prompts"), settings.job_max_prompts
    if isinstance(prompts, list) and len(prompts) > most:
        raise TooLarge(
            f"'prompts' takes up to {most} prompts (LLMPROXY_JOB_MAX_PROMPTS), not {len(prompts)}.", param="prompts"
        )
    return _order(body, task_fields.texts(body, "prompts"), settings, background=True, single=False)


def _order(body: Fields, prompts: Sequence[str], settings: Settings, *, background: bool, single: bool) -> Order:
    kind = task_fields.word(body, "instruction_type", LONGEST_NAME) or "default"
    instruction = settings.instructions.get(kind)
    if instruction is None:
        raise BadRequest(
            f"'instruction_type' must be one of {', '.join(sorted(settings.instructions))}.", param="instruction_type"
        )
    webhook = task_fields.word(body, "webhook_url", LONGEST_URL)
    return Order(
        prompts=prompts,
        instruction_type=kind,
        instruction=instruction,
        model=task_fields.word(body, "model", _LONGEST_MODEL),
        user=task_fields.word(body, "user_id", LONGEST_NAME),
        session=task_fields.word(body, "session_id", LONGEST_NAME),
        max_tokens=task_fields.whole(body, "max_tokens", 1, _MOST_TOKENS),
        temperature=task_fields.number(body, "temperature", 0.0, _HOTTEST),
        background=background,
        single=single,
        webhook_url=told(webhook, settings) if background else "",
    )
