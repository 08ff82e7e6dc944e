"""``llmproxy config``."""

import json

import typer

from llmproxy.cli.options import (
    DatabaseFlag,
    HostFlag,
    LogFormatFlag,
    LogLevelFlag,
    PortFlag,
    UpstreamFlag,
    load_with,
)
from llmproxy.config.load import Loaded, display_value

app = typer.Typer(add_completion=False, rich_markup_mode=None)


@app.command()
def config(
    upstream: UpstreamFlag = None,
    host: HostFlag = None,
    port: PortFlag = None,
    database: DatabaseFlag = None,
    log_level: LogLevelFlag = None,
    log_format: LogFormatFlag = None,
) -> None:
    """Print the effective settings with the source of each.

    The output has the form of llmproxy.toml. Secrets are hidden. The flags are those of `llmproxy serve`.
    """
    for line in lines(load_with(upstream, host, port, database, log_level, log_format)):
        typer.echo(line)


def lines(loaded: Loaded) -> list[str]:
    """One line a setting, sources aligned; what is unset or without effect is commented out."""
    left = []
    for name in type(loaded.settings).model_fields:
        value = getattr(loaded.settings, name)
        if value is None:
            left.append(f"# {name} is unset")
        elif name == "database_path" and loaded.settings.database_url is not None:
            left.append(f"# {name} is not used")
        else:
            left.append(f"{name} = {_table(value) if isinstance(value, dict) else display_value(name, value)}")
    width = min(max(map(len, left)), 60)
    return [f"{text:<{width}}  # {source}" for text, source in zip(left, loaded.sources.values(), strict=True)]


def _table(texts: dict[str, str]) -> str:
    """TOML's inline table."""
    pairs = (f"{_string(name)} = {_string(text)}" for name, text in texts.items())
    return "{ " + ", ".join(pairs) + " }"


def _string(text: str) -> str:
    """TOML's, which is JSON's but for one character that has to be escaped."""
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")
