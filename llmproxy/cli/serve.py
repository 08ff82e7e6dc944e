"""``llmproxy serve``."""

import typer

from llmproxy.app import server
from llmproxy.app.lifespan import CannotStart
from llmproxy.cli.failure import CommandFailed
from llmproxy.cli.options import (
    DatabaseFlag,
    HostFlag,
    LogFormatFlag,
    LogLevelFlag,
    PortFlag,
    UpstreamFlag,
    load_with,
)

app = typer.Typer(add_completion=False, rich_markup_mode=None)


@app.command()
def serve(
    upstream: UpstreamFlag = None,
    host: HostFlag = None,
    port: PortFlag = None,
    database: DatabaseFlag = None,
    log_level: LogLevelFlag = None,
    log_format: LogFormatFlag = None,
) -> None:
    """Start the proxy.

    It serves until it is stopped with Ctrl-C or SIGTERM. Every setting can also be given in the environment or in
    llmproxy.toml; `llmproxy config` prints them all.
    """
    settings = load_with(upstream, host, port, database, log_level, log_format).settings
    try:
        server.run(settings)
    except CannotStart as error:
        raise CommandFailed(str(error)) from error
