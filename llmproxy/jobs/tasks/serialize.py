"""Tasks and their results as documents. Times are Unix seconds."""

from typing import Any

from llmproxy.jobs.job import Item, Job
from llmproxy.jobs.states import ItemStatus
from llmproxy.jobs.tasks.chat_request import Said, said
from llmproxy.wire.vocabulary import HITS

Document = dict[str, Any]

_NOTHING = Said(None, None, None)


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
    """One prompt's result, or where it stands."""
    answer = said(item.body) if item.status is ItemStatus.COMPLETED and item.body else _NOTHING
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
