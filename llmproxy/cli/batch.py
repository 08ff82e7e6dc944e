"""``llmproxy batch``: a file of requests through the running proxy's Batches."""

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from llmproxy.cli.batches.api import BatchApi
from llmproxy.cli.batches.run import Left, Paths
from llmproxy.cli.batches.run import run as run_batch
from llmproxy.cli.batches.status import BatchStatus, summary
from llmproxy.cli.client import base
from llmproxy.cli.failure import CommandFailed
from llmproxy.cli.options import ApiKeyFlag, UrlFlag

#: flaws of the input that are printed
_MOST_FLAWS = 100

app = typer.Typer(no_args_is_help=True, add_completion=False, rich_markup_mode=None)


@app.callback()
def batch() -> None:
    """Have a file of requests answered as a batch."""


@app.command()
def run(
    source: Annotated[
        Path,
        typer.Argument(
            metavar="INPUT",
            exists=True,
            dir_okay=False,
            help="A request in each line, as in OpenAI's Batches.",
        ),
    ],
    output: Annotated[
        Path, typer.Option("--output", "-o", metavar="FILE", dir_okay=False, help="Where the answers go.")
    ],
    errors: Annotated[
        Path | None,
        typer.Option(
            "--errors",
            metavar="FILE",
            dir_okay=False,
            help="Where failed lines go [OUTPUT with .errors before its suffix]; no such file is left if none failed.",
        ),
    ] = None,
    url: UrlFlag = None,
    api_key: ApiKeyFlag = None,
) -> None:
    """Send a file of requests, wait for the answers, and fetch them.

    Ctrl-C leaves the batch running, and the same command goes on with it: what is needed for that is kept beside the
    output until the answers are there. The exit code is 1 if any line failed.
    """
    paths = Paths(source, output, errors or output.with_name(f"{output.stem}.errors{output.suffix}"))
    if len({path.resolve() for path in (paths.source, paths.output, paths.errors)}) < 3:
        raise typer.BadParameter("input, output and errors must be three different files")
    where = base(url)
    with BatchApi(where, api_key) as api:
        try:
            done = run_batch(paths, api, Console(stderr=True, highlight=False))
        except Left as left:
            typer.echo(f"{left.batch or 'what was begun'} goes on; the same command goes on with it", err=True)
            raise typer.Exit(130) from None
    _report(done, paths)


def _report(batch: BatchStatus, paths: Paths) -> None:
    """Raises ``CommandFailed`` where anything went wrong."""
    if batch.refused:
        for flaw in batch.flaws[:_MOST_FLAWS]:
            typer.echo(flaw, err=True)
        if len(batch.flaws) > _MOST_FLAWS:
            typer.echo(f"and {len(batch.flaws) - _MOST_FLAWS:,} more", err=True)
        raise CommandFailed(f"{batch.id} was refused and nothing was run; {paths.source} has to be corrected")
    for line in summary(batch):
        typer.echo(line)
    if batch.status != "completed":
        raise CommandFailed(f"{batch.id} is {batch.status}; what was answered is in {paths.output}")
    if batch.failed:
        raise CommandFailed(f"{batch.failed:,} of {batch.total:,} lines failed; the reasons are in {paths.errors}")
