"""``llmproxy serve`` and ``llmproxy worker``."""

from typing import Annotated

import typer

from llmproxy.app import server, worker
from llmproxy.app.lifespan import CannotStart
from llmproxy.cli.options import (
    CommandFailed,
    DatabaseFlag,
    HostFlag,
    LogFormatFlag,
    LogLevelFlag,
    PortFlag,
    UpstreamFlag,
    load_with,
)

serve_app = typer.Typer(add_completion=False, rich_markup_mode=None)
worker_app = typer.Typer(add_completion=False, rich_markup_mode=None)


@serve_app.command()
def serve(
    upstream: UpstreamFlag = None,
    host: HostFlag = None,
    port: PortFlag = None,
    database: DatabaseFlag = None,
    log_level: LogLevelFlag = None,
    log_format: LogFormatFlag = None,
    require_upstream: Annotated[
        bool, typer.Option("--require-upstream", help="Refuse to start while no model server answers.")
    ] = False,
) -> None:
    """Start the proxy.

    It serves until it is stopped with Ctrl-C or SIGTERM. Without a model server it starts all the same, and finds one
    that is started later. Every setting can also be given in the environment or in llmproxy.toml; `llmproxy config`
    prints them all.
    """
    settings = load_with(
        upstream, host, port, database, log_level, log_format, require_upstream=require_upstream or None
    ).settings
    try:
        server.run(settings)
    except CannotStart as error:
        raise CommandFailed(str(error)) from error


@worker_app.command("worker")
def work(
    upstream: UpstreamFlag = None,
    database: DatabaseFlag = None,
    workers: Annotated[
        str | None, typer.Option("--workers", metavar="N", help="Background requests at once [4].")
    ] = None,
    log_level: LogLevelFlag = None,
    log_format: LogFormatFlag = None,
) -> None:
    """Run background jobs, without serving.

    It shares the jobs of its database with `llmproxy serve` and other workers, until it is stopped with Ctrl-C or
    SIGTERM; requests that run then go back to the queue. The settings are those of `llmproxy serve`.
    """
    settings = load_with(
        upstream, database=database, log_level=log_level, log_format=log_format, workers=workers
    ).settings
    try:
        worker.run(settings)
    except CannotStart as error:
        raise CommandFailed(str(error)) from error
