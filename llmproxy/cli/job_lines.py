"""Jobs, as the running proxy's API gives them, in lines for people."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime

from llmproxy.cli.client import Json
from llmproxy.cli.columns import NOTHING, aligned, duration, printable
from llmproxy.cli.failure import CommandFailed

#: characters of a model's name, of a caller's label, of an error
_NAME, _LABEL, _REASON = 30, 40, 200


@contextmanager
def understood() -> Iterator[None]:
    """Raises ``CommandFailed`` where a document is not what these lines are made for."""
    try:
        yield
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise CommandFailed("the proxy's answer is not understood; is it of this version? --json prints it") from error


def table(jobs: Sequence[Json], now: float) -> Iterator[str]:
    """One line a job. ``now`` in Unix seconds."""
    if not jobs:
        yield "no jobs"
        return
    rows = [["job", "status", "model", "calls", "done", "failed", "hits", "age"]]
    for job in jobs:
        progress = job["progress"]
        rows.append(
            [
                printable(job["id"], _LABEL),
                printable(job["status"], _LABEL),
                printable(job["model"], _NAME) or NOTHING,
                f"{progress['total']:,}",
                f"{progress['completed']:,}",
                f"{progress['failed']:,}",
                f"{job['hits']:,}",
                duration(max(now - job["created_at"], 0.0)),
            ]
        )
    yield from aligned(rows, left=3)


def details(job: Json, now: float) -> Iterator[str]:
    """Everything about one job. ``now`` in Unix seconds."""
    yield from aligned(_facts(job, now), left=2)
    if job["errors"]:
        yield ""
        rows = [["call", "attempts", "status", "label", "reason"]]
        rows += [_failed(error) for error in job["errors"]]
        yield from aligned(rows, left=5)


def _facts(job: Json, now: float) -> Iterator[list[str]]:
    progress, tokens = job["progress"], job["tokens"]
    yield ["job", printable(job["id"], _LABEL)]
    yield ["kind", f"{printable(job['kind'], _LABEL)}, {printable(job['path'], _LABEL)}"]
    yield ["status", printable(job["status"], _LABEL)]
    if job["error"]:
        yield ["error", _reason(job["error"])]
    yield ["model", printable(job["model"], _NAME) or NOTHING]
    who = [printable(job[name], _LABEL) for name in ("caller", "user", "session") if job[name]]
    yield ["from", ", ".join(who) or "anybody"]
    yield ["created", _stamp(job["created_at"])]
    yield ["took", _took(job, now)]
    ended = [f"{progress[name]:,} {name}" for name in ("completed", "failed", "cancelled", "expired") if progress[name]]
    yield ["calls", ", ".join([f"{progress['total']:,}", *ended])]
    yield ["attempts", f"{job['attempts']:,}"]
    yield ["hits", f"{job['hits']:,}"]
    yield ["tokens", f"{tokens['prompt']:,} of prompts, {tokens['completion']:,} of completions"]


def _took(job: Json, now: float) -> str:
    if job["started_at"] is None:
        return NOTHING
    if job["finished_at"] is None:
        return f"{duration(max(now - job['started_at'], 0.0))} so far"
    return duration(job["finished_at"] - job["started_at"])


def _failed(error: Json) -> list[str]:
    return [
        f"{error['position']}",
        f"{error['attempts']:,}",
        f"{error['status_code'] or NOTHING}",
        printable(error["label"], _LABEL) or NOTHING,
        _reason(error),
    ]


def _reason(error: Json) -> str:
    return printable(": ".join(part for part in (error["code"], error["message"]) if part), _REASON)


def _stamp(seconds: float) -> str:
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%d %H:%M:%S} UTC"
