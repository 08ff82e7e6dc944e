"""``llmproxy worker``."""

from typing import Annotated

import typer

from llmproxy.app import worker as program
from llmproxy.app.lifespan import CannotStart
from llmproxy.cli.failure import CommandFailed
from llmproxy.cli.options import DatabaseFlag, LogFormatFlag, LogLevelFlag, UpstreamFlag, load_with

app = typer.Typer(add_completion=False, rich_markup_mode=None)


@app.command()
def worker(
    upstream: UpstreamFlag = None,
    database: DatabaseFlag = None,
    workers: Annotated[
        str | None, typer.Option("--workers", metavar="N", help="Calls of jobs in work at once [4].")
    ] = None,
    log_level: LogLevelFlag = None,
    log_format: LogFormatFlag = None,
) -> None:
    """Work on background jobs, without serving.

    It shares the jobs of its database with `llmproxy serve` and other workers, until it is stopped with Ctrl-C or
    SIGTERM: what it has begun is given back then. The settings are those of `llmproxy serve`.
    """
    settings = load_with(
        upstream, database=database, log_level=log_level, log_format=log_format, workers=workers
    ).settings
    try:
        program.run(settings)
    except CannotStart as error:
        raise CommandFailed(str(error)) from error
