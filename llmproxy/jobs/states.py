"""The states of jobs and items, and how a job ends. Pure."""

from dataclasses import dataclass
from enum import Enum, StrEnum


class JobKind(StrEnum):
    """The face through which a job came in."""

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

    ``prefix`` begins their ids. ``priority`` is that of their calls, lower goes first: somebody waits for a single one.
    ``first`` is the step that finds out what the calls are, None where they come with the job; ``last`` is done when
    the calls have ended.
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

#: of the steps that are no calls. Those of batches are short, and all the calls of one wait for them
STEP_PRIORITIES = {Step.VALIDATE: -1, Step.FINALIZE: -1, Step.DELIVER: -2}


BATCH_STEPS = frozenset({Step.VALIDATE, Step.FINALIZE})


class Lane(Enum):
    """Items that are claimed together, by their lowest and their highest priority: the index knows these."""

    ALL = (-2, 2)
    #: what may take long, and only a receiver waits for
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
