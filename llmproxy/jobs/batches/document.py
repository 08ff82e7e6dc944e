"""The batch object, from a job's row. Pure."""

from typing import Any

from llmproxy.jobs.batches.batch_detail import Detail
from llmproxy.jobs.batches.params import WINDOW
from llmproxy.jobs.job import Job
from llmproxy.jobs.states import JobStatus

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


def document(job: Job) -> dict[str, Any]:
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
