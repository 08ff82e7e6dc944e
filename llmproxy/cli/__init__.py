"""The command line: a table of verbs, each loaded only when it is called, and ``main``."""

import gc
import sys
from dataclasses import dataclass
from importlib import import_module
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from llmproxy import __version__
from llmproxy.cli.options import CommandFailed
from llmproxy.config.load import ConfigError
from llmproxy.wire.errors import ProxyError


@dataclass(frozen=True)
class Verb:
    """``module`` holds a ``typer.Typer`` named ``attribute``."""

    name: str
    module: str
    summary: str
    attribute: str = "app"


VERBS = (
    Verb("serve", "llmproxy.cli.serve", "Start the proxy.", "serve_app"),
    Verb("worker", "llmproxy.cli.serve", "Run background jobs, without serving.", "worker_app"),
    Verb("status", "llmproxy.cli.status", "Show the state of a running proxy, on one screen."),
    Verb("tail", "llmproxy.cli.history", "Show requests as they end, until Ctrl-C.", "tail_app"),
    Verb("history", "llmproxy.cli.history", "List requests, the newest first.", "history_app"),
    Verb("explain", "llmproxy.cli.explain", "Say why a request was answered from the cache, or why not."),
    Verb("cache", "llmproxy.cli.cache", "Inspect and flush the cache of a running proxy."),
    Verb("batch", "llmproxy.cli.batch", "Run a file of requests as a batch."),
    Verb("jobs", "llmproxy.cli.jobs", "Manage the background jobs of a running proxy."),
    Verb("demo", "llmproxy.cli.demo.verb", "Show what the proxy does, with a small real model."),
    Verb("bench", "llmproxy.cli.bench", "Measure a running proxy and the model behind it."),
    Verb("config", "llmproxy.cli.config", "Print the effective settings with the source of each."),
    Verb("db", "llmproxy.cli.db", "Back up, restore and copy the database, and manage its schema."),
)


class _Verbs(TyperGroup):
    """Puts the real command in the place of its stand-in before it runs: ``serve`` must not pay for the others."""

    # typer's own types for a context and a command are private
    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        for verb in VERBS:
            if args[0] == verb.name:
                self.commands[verb.name] = load(verb)
        return super().resolve_command(ctx, args)


def load(verb: Verb) -> Any:
    """The command behind a row of the table."""
    # what is imported stays: to walk through it again and again would take the collector a fifth of the time to start
    gc.disable()
    try:
        module = import_module(verb.module)
    finally:
        gc.freeze()
        gc.enable()
    command = typer.main.get_command(getattr(module, verb.attribute))
    command.name = verb.name
    return command


def _stand_in() -> None:
    """In the list of verbs for ``--help``; never runs."""


def _version(is_requested: bool) -> None:
    if is_requested:
        typer.echo(f"llmproxy {__version__}")
        raise typer.Exit


def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """A drop-in OpenAI-compatible caching proxy for local models.

    Start it in front of llama.cpp, Ollama or any server that speaks OpenAI's API, and set OPENAI_BASE_URL.
    """


def application() -> typer.Typer:
    """The whole command line."""
    app = typer.Typer(
        cls=_Verbs,
        callback=_root,
        no_args_is_help=True,
        rich_markup_mode=None,
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    for verb in VERBS:
        app.command(verb.name, help=verb.summary)(_stand_in)
    return app


def main() -> None:
    """Runs the command line. Exit codes: 0; 1 for a failure; 2 for wrong usage or settings; 130 after Ctrl-C."""
    try:
        sys.exit(application()(prog_name="llmproxy", standalone_mode=False) or 0)
    except typer.TyperException as error:
        print(_usage(error), file=sys.stderr)
        sys.exit(error.exit_code)
    except typer.Abort:
        _end("stopped", 1)
    except ConfigError as error:
        _end(str(error), 2)
    except (CommandFailed, ProxyError, OSError) as error:
        _end(str(error), 1)


def _usage(error: typer.TyperException) -> str:
    """One line on what is wrong with the arguments and where they are explained; the help if there were none."""
    message = error.format_message()
    if message.startswith("Usage:"):
        return message
    message = message.removeprefix("Invalid value: ").rstrip(".")
    context = getattr(error, "ctx", None)
    command = context.command_path if context else "llmproxy"
    return f"llmproxy: {message[:1].lower()}{message[1:]} ({command} --help)"


def _end(message: str, code: int) -> None:
    print(f"llmproxy: {message}", file=sys.stderr)
    sys.exit(code)
