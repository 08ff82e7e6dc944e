"""The body of ``POST /v1/batches``, what only a batch knows of its job, and the batch object. Pure."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Self

from llmproxy.api.batch_input import ENDPOINTS, Entry
from llmproxy.jobs.model import Job, JobStatus
from llmproxy.jobs.stored_model import parse_metadata
from llmproxy.wire import validation

#: the only completion window there is
WINDOW = "24h"
WINDOW_SECONDS = 86_400

_LONGEST_ID = 200
#: how long the output files may be kept: an hour to thirty days
_LEAST_SECONDS = 3_600
_MOST_SECONDS = 2_592_000


@dataclass(frozen=True, slots=True)
class BatchSpec:
    """``output_seconds`` is how long the output files are kept, None if the request does not say."""

    input_file_id: str
    endpoint: str
    metadata: Mapping[str, str] | None
    output_seconds: int | None


def read_batch_spec(body: Mapping[str, Any]) -> BatchSpec:
    """Raises ``BadRequest`` in OpenAI's words. Members that are not known are passed over."""
    input_file_id = _text(body, "input_file_id")
    if len(input_file_id) > _LONGEST_ID:
        raise validation.too_long("input_file_id", _LONGEST_ID, len(input_file_id))
    endpoint = _text(body, "endpoint")
    if endpoint not in ENDPOINTS:
        raise validation.not_allowed("endpoint", endpoint, list(ENDPOINTS))
    window = _text(body, "completion_window")
    if window != WINDOW:
        raise validation.not_allowed("completion_window", window, [WINDOW])
    # what has no labels keeps saying so
    metadata = None if body.get("metadata") is None else parse_metadata(body["metadata"])
    return BatchSpec(input_file_id, endpoint, metadata, _output_seconds(body))


def _text(holder: Mapping[str, Any], name: str) -> str:
    value = holder.get(name)
    if value is None:
        raise validation.missing(name)
    if not isinstance(value, str):
        raise validation.wrong_type(name, "a string", value)
    return value


def _output_seconds(body: Mapping[str, Any]) -> int | None:
    prefix = "output_expires_after"
    expiry = body.get(prefix)
    if expiry is None:
        return None
    if not isinstance(expiry, dict):
        raise validation.wrong_type(prefix, "an object", expiry)
    anchor = expiry.get("anchor")
    if anchor is None:
        raise validation.missing(f"{prefix}.anchor")
    if anchor != "created_at":
        raise validation.not_allowed(f"{prefix}.anchor", str(anchor), ["created_at"])
    seconds = expiry.get("seconds")
    if seconds is None:
        raise validation.missing(f"{prefix}.seconds")
    if not isinstance(seconds, int) or isinstance(seconds, bool):
        raise validation.wrong_type(f"{prefix}.seconds", "an integer", seconds)
    if not _LEAST_SECONDS <= seconds <= _MOST_SECONDS:
        raise validation.out_of_range(f"{prefix}.seconds", _LEAST_SECONDS, _MOST_SECONDS, seconds)
    return seconds


@dataclass(frozen=True, slots=True)
class Detail:
    """``blob`` names the input file's bytes, None if there was no such file when the batch was created.

    ``errors`` are those of validation. ``output_file_id`` and ``error_file_id`` are those of the last end, None for a
    file that would have no lines.
    """

    input_file_id: str
    blob: str | None = None
    metadata: Mapping[str, str] | None = None
    output_seconds: int | None = None
    errors: tuple[Entry, ...] = ()
    output_file_id: str | None = None
    error_file_id: str | None = None

    @classmethod
    def of(cls, job: Job) -> Self:
        return cls(**{**job.detail, "errors": tuple(job.detail.get("errors", ()))})

    def members(self) -> dict[str, Any]:
        """For ``NewJob.detail``."""
        return asdict(self)


STATUS = {
    JobStatus.PENDING: "validating",
    JobStatus.RUNNING: "in_progress",
    JobStatus.FINALIZING: "finalizing",
    JobStatus.CANCELLING: "cancelling",
    JobStatus.COMPLETED: "completed",
    JobStatus.FAILED: "failed",
    JobStatus.CANCELLED: "cancelled",
    JobStatus.EXPIRED: "expired",
}


def batch_object(job: Job) -> dict[str, Any]:
    """OpenAI's ``Batch``."""
    detail = Detail.of(job)
    return {
        "id": job.id,
        "object": "batch",
        "endpoint": job.path,
        "model": job.model or None,
        "errors": _errors(job, detail),
        "input_file_id": detail.input_file_id,
        "completion_window": WINDOW,
        "status": STATUS[job.status],
        # a batch that is tried again has files of its first end, until the next one
        "output_file_id": detail.output_file_id if job.status.over else None,
        "error_file_id": detail.error_file_id if job.status.over else None,
        **_times(job),
        "request_counts": {"total": job.total, "completed": job.completed, "failed": job.failed},
        "usage": _usage(job) if job.completed else None,
        "metadata": detail.metadata,
        # not OpenAI's: clients pass over what they do not know
        "llmproxy": {"hits": job.hits},
    }


def _times(job: Job) -> dict[str, int | None]:
    def at_end(status: JobStatus) -> int | None:
        return _whole(job.finished_at) if job.status is status else None

    created = int(job.created_at)
    return {
        "created_at": created,
        "in_progress_at": _whole(job.started_at),
        # the window counts from the second that is shown
        "expires_at": None if job.expires_at is None else created + round(job.expires_at - job.created_at),
        "finalizing_at": _whole(job.finalizing_at),
        "completed_at": at_end(JobStatus.COMPLETED),
        "failed_at": at_end(JobStatus.FAILED),
        "expired_at": at_end(JobStatus.EXPIRED),
        "cancelling_at": _whole(job.cancelling_at),
        "cancelled_at": at_end(JobStatus.CANCELLED),
    }


def _whole(seconds: float | None) -> int | None:
    return None if seconds is None else int(seconds)


def _errors(job: Job, detail: Detail) -> dict[str, Any] | None:
    if job.status is not JobStatus.FAILED:
        return None
    entries = list(detail.errors)
    if not entries and job.error is not None:
        entries = [{"code": job.error.code, "line": None, "message": job.error.message, "param": None}]
    return {"object": "list", "data": entries}


def _usage(job: Job) -> dict[str, Any]:
    """In the terms of the Responses API; every member is required there."""
    return {
        "input_tokens": job.prompt_tokens,
        "input_tokens_details": {"cached_tokens": job.cached_tokens},
        "output_tokens": job.completion_tokens,
        "output_tokens_details": {"reasoning_tokens": job.reasoning_tokens},
        "total_tokens": job.prompt_tokens + job.completion_tokens,
    }
