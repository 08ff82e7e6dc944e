"""``llmproxy jobs``: the background jobs of a running proxy, through its API."""

import json
import time
from typing import Annotated

import typer

from llmproxy.cli.client import Json, operator
from llmproxy.cli.columns import printable
from llmproxy.cli.job_lines import details, table, understood
from llmproxy.cli.options import JsonFlag, UrlFlag

app = typer.Typer(no_args_is_help=True, add_completion=False, rich_markup_mode=None)

Id = Annotated[str, typer.Argument(metavar="ID", help="A job's id: a task's, a batch's or a Response's.")]


@app.callback()
def jobs() -> None:
    """Look after the background jobs of a running proxy.

    They are everybody's: tasks, batches and background Responses of all callers. The admin token, where the proxy asks
    for one, is read from LLMPROXY_ADMIN_TOKEN or llmproxy.toml.
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
        _print(page)
        return
    with understood():
        for line in table(page["data"], time.time()):
            typer.echo(line)
        if page["next"]:
            typer.echo(f"there are more: --after {printable(page['next'], 80)}")


@app.command()
def show(
    id: Id,
    errors: Annotated[
        int, typer.Option(metavar="N", help="How many of its failed calls at most.", min=0, max=1000)
    ] = 20,
    url: UrlFlag = None,
    as_json: JsonFlag = False,
) -> None:
    """Show one job, and why calls of it failed."""
    job = operator(url).job(id, errors)
    if as_json:
        _print(job)
        return
    with understood():
        for line in details(job, time.time()):
            typer.echo(line)


@app.command()
def cancel(id: Id, url: UrlFlag = None, as_json: JsonFlag = False) -> None:
    """End a job: what is done is kept, the rest is not begun."""
    _moved(operator(url).cancel_job(id), as_json)


@app.command()
def retry(id: Id, url: UrlFlag = None, as_json: JsonFlag = False) -> None:
    """Have the calls of a job made again that did not succeed."""
    _moved(operator(url).retry_job(id), as_json)


def _moved(job: Json, as_json: bool) -> None:
    if as_json:
        _print(job)
        return
    with understood():
        typer.echo(f"{printable(job['id'], 80)} is {printable(job['status'], 20)}")


def _print(document: Json) -> None:
    typer.echo(json.dumps(document, indent=2))
