"""A job, its items, their states, and what a worker gets and gives. Pure, but for the random part of ids."""

import json
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum, StrEnum
from typing import Any

from sqlalchemy import RowMapping

from llmproxy.wire.headers import HeaderList


class JobKind(StrEnum):
    """The part of the API through which a job came in."""

    TASK = "task"
    BATCH = "batch"
    RESPONSE = "response"


class JobStatus(StrEnum):
    """``pending -> running -> (finalizing | cancelling) -> completed | failed | cancelled | expired``."""

    #: accepted; nothing has been started
    PENDING = "pending"
    RUNNING = "running"
    #: every call has ended, the last step is being done
    FINALIZING = "finalizing"
    #: cancelled, and the last step is being done
    CANCELLING = "cancelling"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"
    EXPIRED = "expired"

    @property
    def over(self) -> bool:
        return self in _OVER

    @property
    def open(self) -> bool:
        """Whether calls may still be made."""
        return self in (JobStatus.PENDING, JobStatus.RUNNING)


_OVER = frozenset({JobStatus.COMPLETED, JobStatus.FAILED, JobStatus.CANCELLED, JobStatus.EXPIRED})


class ItemStatus(StrEnum):
    """``waiting <-> running -> completed | failed``; ``cancelled`` and ``expired`` from either of the first two."""

    WAITING = "waiting"
    #: somebody holds a lease on it
    RUNNING = "running"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"
    EXPIRED = "expired"


class Step(StrEnum):
    """What an item does."""

    #: one request through the life of a request
    CALL = "call"
    #: reads a batch's input file and adds its calls
    VALIDATE = "validate"
    #: writes a batch's output files
    FINALIZE = "finalize"
    #: tells a webhook
    DELIVER = "deliver"


@dataclass(frozen=True, slots=True)
class JobTraits:
    """What differs between the kinds of jobs.

    ``prefix`` begins their ids. ``priority`` is that of their calls; lower goes first, because a caller waits for a
    single one.
    ``first`` is the step that finds the calls, None if they come with the job; ``last`` is done when the calls have
    ended.
    """

    prefix: str
    priority: int
    first: Step | None = None
    last: Step | None = None


TRAITS = {
    JobKind.TASK: JobTraits("task_", 1),
    JobKind.BATCH: JobTraits("batch_", 2, Step.VALIDATE, Step.FINALIZE),
    JobKind.RESPONSE: JobTraits("resp_", 0),
}

#: of the steps that are not calls. Those of batches are short, and all calls of a batch wait for them
STEP_PRIORITIES = {Step.VALIDATE: -1, Step.FINALIZE: -1, Step.DELIVER: -2}


BATCH_STEPS = frozenset({Step.VALIDATE, Step.FINALIZE})


class Lane(Enum):
    """Items that are claimed together, by their lowest and their highest priority, which the index orders."""

    ALL = (-2, 2)
    #: webhooks: they may take long, and only their receivers wait for them
    MESSAGES = (-2, -2)
    #: calls, and the steps of batches
    WORK = (-1, 2)
    STEPS = (-1, -1)


def outcome(completed: int, cancelled: int, expired: int) -> JobStatus:
    """The status of a job whose calls have all ended: a job of which anything came out is completed."""
    if cancelled:
        return JobStatus.CANCELLED
    if expired:
        return JobStatus.EXPIRED
    return JobStatus.COMPLETED if completed else JobStatus.FAILED


#: prefixes of the headers that a job hands on to each of its calls
_FORWARDED = (b"x-llmproxy-", b"cache-control", b"traceparent", b"tracestate")


@dataclass(frozen=True, slots=True)
class Failure:
    """Why a job or an item has no answer, in OpenAI's words."""

    code: str
    message: str

    def json(self) -> str:
        return json.dumps({"code": self.code, "message": self.message})

    @classmethod
    def read(cls, text: str) -> "Failure | None":
        return cls(**json.loads(text)) if text else None


@dataclass(frozen=True, slots=True)
class TokenUsage:
    """Summed over answers."""

    prompt: int = 0
    completion: int = 0
    #: of the prompt's, those that the model server had in its prefix cache
    cached: int = 0
    #: of the completion's, those of reasoning
    reasoning: int = 0


@dataclass(frozen=True, slots=True)
class NewJob:
    """A job to be accepted. ``headers`` are those that its calls carry."""

    kind: JobKind
    path: str
    model: str = ""
    scope: str = ""
    caller: str = ""
    user: str = ""
    session: str = ""
    headers: HeaderList = field(default_factory=list)
    detail: Mapping[str, Any] = field(default_factory=dict)
    expires_at: float | None = None
    webhook_url: str = ""
    idempotency_key: str | None = None
    #: given if they must be known before the job is
    id: str = ""
    created_at: float | None = None


@dataclass(frozen=True, slots=True)
class NewCall:
    """One call of a job. ``body`` is the JSON of the request."""

    position: int
    body: bytes
    label: str = ""


@dataclass(frozen=True, slots=True)
class Job:
    """One row of ``tables.jobs``. Times are Unix seconds."""

    id: str
    kind: JobKind
    status: JobStatus
    ending: str
    scope: str
    caller: str
    user_name: str
    session: str
    path: str
    model: str
    created_at: float
    started_at: float | None
    finalizing_at: float | None
    cancelling_at: float | None
    finished_at: float | None
    expires_at: float | None
    total: int
    completed: int
    failed: int
    cancelled: int
    expired: int
    hits: int
    prompt_tokens: int
    completion_tokens: int
    cached_tokens: int
    reasoning_tokens: int
    headers: HeaderList
    detail: dict[str, Any]
    error: Failure | None
    webhook_url: str
    idempotency_key: str | None

    @property
    def ended(self) -> int:
        """Calls that are over."""
        return self.completed + self.failed + self.cancelled + self.expired

    @classmethod
    def read(cls, row: RowMapping) -> "Job":
        read: dict[str, Any] = {**row}
        read |= {
            "kind": JobKind(row["kind"]),
            "status": JobStatus(row["status"]),
            "headers": read_headers(row["headers"]),
            "detail": json.loads(row["detail"]),
            "error": Failure.read(row["error"]),
        }
        return cls(**read)


@dataclass(frozen=True, slots=True)
class Claimed:
    """An item in the hands of ``worker``. ``claims`` says the how-many'th time it was claimed."""

    id: int
    claims: int
    attempts: int
    step: Step
    position: int
    label: str
    body: bytes
    job: Job
    worker: str


@dataclass(frozen=True, slots=True)
class File:
    """One row of ``tables.files``. Its bytes are the blob named ``id``. Times are Unix seconds, ``sha256`` is hex."""

    id: str
    scope: str
    purpose: str
    filename: str
    bytes: int
    sha256: str
    created_at: float
    expires_at: float | None = None
    idempotency_key: str | None = None


#: one event of a Response: number and frame
Event = tuple[int, bytes]


@dataclass(frozen=True, slots=True)
class Refusal:
    """The first step found that its job cannot be worked on: it fails. ``detail`` is added to the job's own."""

    error: Failure
    detail: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Finalization:
    """The last step is done: ``files`` take the place of those with their ids, the files ``removed`` go, and the job
    ends as it was to. ``detail`` is added to the job's own."""

    files: Sequence[File]
    removed: Sequence[str]
    detail: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Completion:
    """The stored answer of the job has its ``document``, JSON, and its last ``events``. Unix seconds."""

    document: bytes
    expires_at: float | None
    events: Sequence[Event] = ()


@dataclass(frozen=True, slots=True)
class ItemResult:
    """How an item ended. ``body`` is the answer's, or the error's document.

    ``move`` is what its job does with it: in the transaction that makes the result count, and undone with it.
    """

    status: ItemStatus
    status_code: int = 0
    body: bytes = b""
    error: Failure | None = None
    request_id: str = ""
    cache: str = ""
    seconds: float = 0.0
    tokens: TokenUsage = TokenUsage()
    move: Refusal | Finalization | Completion | None = None


@dataclass(frozen=True, slots=True)
class Reschedule:
    """The item waits for another try in ``seconds``. ``counts`` says whether this one was an attempt."""

    seconds: float
    counts: bool = True


@dataclass(frozen=True, slots=True)
class Item:
    """An item as the API shows it, with its result if it has one."""

    id: int
    position: int
    label: str
    status: ItemStatus
    attempts: int
    started_at: float | None
    finished_at: float | None
    ended: int | None
    status_code: int | None
    body: bytes | None
    error: Failure | None
    request_id: str
    cache: str
    seconds: float | None


def new_id(kind: JobKind) -> str:
    return TRAITS[kind].prefix + secrets.token_hex(16)


def forwarded_headers(headers: HeaderList) -> HeaderList:
    """Returns the headers that a job hands on to its calls: those for the cache, and the trace."""
    return [header for header in headers if header[0].startswith(_FORWARDED)]


def write_headers(headers: HeaderList) -> str:
    return json.dumps([[name.decode("latin-1"), value.decode("latin-1")] for name, value in headers])


def read_headers(text: str) -> HeaderList:
    return [(name.encode("latin-1"), value.encode("latin-1")) for name, value in json.loads(text)]
