"""What the commands share: the flags that set settings, the settings with them, and the error that ends a command."""

from typing import Annotated

import typer

from llmproxy.config.load import Loaded, load
from llmproxy.config.settings import LogLevel

# a flag is text here: the settings say what is allowed, in the same words wherever a value came from
UpstreamFlag = Annotated[
    list[str] | None,
    typer.Option(
        "--upstream",
        metavar="URL",
        help="A model server's base URL; repeat it for several. Without it the usual local ports are probed.",
    ),
]
HostFlag = Annotated[str | None, typer.Option("--host", metavar="ADDRESS", help="Address to listen on [127.0.0.1].")]
PortFlag = Annotated[
    str | None, typer.Option("--port", metavar="PORT", help="Port to listen on [4141]; 0 takes a free one.")
]
DatabaseFlag = Annotated[
    str | None,
    typer.Option(
        "--database", metavar="PATH-OR-URL", help="SQLite file or database URL [llmproxy.db in the user's data folder]."
    ),
]
LogLevelFlag = Annotated[
    str | None,
    typer.Option("--log-level", metavar="LEVEL", help=f"Least severe level that is logged: {', '.join(LogLevel)}."),
]
LogFormatFlag = Annotated[
    str | None,
    typer.Option("--log-format", metavar="FORMAT", help="text, json, or auto: text on a terminal, else json."),
]
UrlFlag = Annotated[
    str | None, typer.Option("--url", metavar="URL", help="URL of the running proxy [http://127.0.0.1:4141].")
]
ApiKeyFlag = Annotated[
    str | None,
    typer.Option(
        "--api-key",
        metavar="KEY",
        envvar="OPENAI_API_KEY",
        show_envvar=False,
        help="API key of the proxy, if it needs one [OPENAI_API_KEY].",
    ),
]
JsonFlag = Annotated[bool, typer.Option("--json", help="Print the answer as JSON.")]


def load_with(
    upstream: list[str] | None = None,
    host: str | None = None,
    port: str | None = None,
    database: str | None = None,
    log_level: str | None = None,
    log_format: str | None = None,
    workers: str | None = None,
    require_upstream: bool | None = None,
) -> Loaded:
    """The settings with these flags on top. Raises ``ConfigError``."""
    database_setting = "database_url" if database and "://" in database else "database_path"
    return load(
        {
            "upstream": tuple(upstream) if upstream else None,
            "require_upstream": require_upstream,
            "host": host,
            "port": port,
            database_setting: database,
            "log_level": log_level,
            "log_format": log_format,
            "task_queue_workers": workers,
        }
    )


class CommandFailed(Exception):
    """Ends the program with exit code 1 and this message, on stderr."""
