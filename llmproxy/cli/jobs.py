"""``llmproxy jobs``: the background jobs of a running proxy, through its API."""

import time
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from typing import Annotated

import typer

from llmproxy.cli.client import Json, operator, understanding
from llmproxy.cli.format import NOTHING, aligned, print_json, printable
from llmproxy.cli.format import table as columns
from llmproxy.cli.options import JsonFlag, UrlFlag
from llmproxy.observe.access_log import duration

app = typer.Typer(no_args_is_help=True, add_completion=False, rich_markup_mode=None)

Id = Annotated[str, typer.Argument(metavar="ID", help="A job's id: a task's, a batch's or a Response's.")]


@app.callback()
def jobs() -> None:
    """Manage the background jobs of a running proxy.

    These are the tasks, batches and background Responses of all callers. The admin token, if the proxy needs
    one, is read from LLMPROXY_ADMIN_TOKEN or llmproxy.toml.
    """


@app.command("list")
def list_jobs(
    kind: Annotated[str | None, typer.Option(metavar="KIND", help="Only these: task, batch or response.")] = None,
    status: Annotated[
        str | None, typer.Option(metavar="STATUS", help="Only those in this state: pending, running, failed, ...")
    ] = None,
    limit: Annotated[int, typer.Option(metavar="N", help="How many at most.", min=1, max=100)] = 20,
    after: Annotated[
        str | None, typer.Option(metavar="ID", help="Those that are older than this one: the next page.")
    ] = None,
    url: UrlFlag = None,
    as_json: JsonFlag = False,
) -> None:
    """List jobs, the newest first."""
    given = {"kind": kind, "status": status, "limit": str(limit), "cursor": after}
    page = operator(url).jobs({name: value for name, value in given.items() if value is not None})
    if as_json:
        print_json(page)
        return
    with understanding():
        for line in table(page["data"], time.time()):
            typer.echo(line)
        if page["next"]:
            typer.echo(f"there are more: --after {printable(page['next'], 80)}")


@app.command()
def show(
    id: Id,
    errors: Annotated[
        int, typer.Option(metavar="N", help="How many of its failed requests at most.", min=0, max=1000)
    ] = 20,
    url: UrlFlag = None,
    as_json: JsonFlag = False,
) -> None:
    """Show one job, and why requests of it failed."""
    job = operator(url).job(id, errors)
    if as_json:
        print_json(job)
        return
    with understanding():
        for line in details(job, time.time()):
            typer.echo(line)


@app.command()
def cancel(id: Id, url: UrlFlag = None, as_json: JsonFlag = False) -> None:
    """Cancel a job: results that are there stay, the rest is not run."""
    _moved(operator(url).cancel_job(id), as_json)


@app.command()
def retry(id: Id, url: UrlFlag = None, as_json: JsonFlag = False) -> None:
    """Retry the requests of a job that did not succeed."""
    _moved(operator(url).retry_job(id), as_json)


def _moved(job: Json, as_json: bool) -> None:
    if as_json:
        print_json(job)
        return
    with understanding():
        typer.echo(f"{printable(job['id'], 80)} is {printable(job['status'], 20)}")


#: characters of a model's name, of a caller's label, of an error
_NAME, _LABEL, _REASON = 30, 40, 200


def table(jobs: Sequence[Json], now: float) -> Iterator[str]:
    """One line a job. ``now`` in Unix seconds."""
    if not jobs:
        yield "no jobs"
        return
    rows = []
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
    yield from columns(["job", "status", "model", "calls", "done", "failed", "hits", "age"], rows, left=3)


def details(job: Json, now: float) -> Iterator[str]:
    """Everything about one job. ``now`` in Unix seconds."""
    yield from aligned(_facts(job, now), left=2)
    if job["errors"]:
        yield ""
        rows = [_failed(error) for error in job["errors"]]
        yield from columns(["call", "attempts", "status", "label", "reason"], rows, left=5)


def _facts(job: Json, now: float) -> Iterator[list[str]]:
    progress, tokens = job["progress"], job["tokens"]
    yield ["job", printable(job["id"], _LABEL)]
    yield ["kind", f"{printable(job['kind'], _LABEL)}, {printable(job['path'], _LABEL)}"]
    yield ["status", printable(job["status"], _LABEL)]
    if job["error"]:
        yield ["error", _reason(job["error"])]
    yield ["model", printable(job["model"], _NAME) or NOTHING]
    names = [printable(job[name], _LABEL) for name in ("caller", "user", "session") if job[name]]
    yield ["from", ", ".join(names) or "anybody"]
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
