"""``llmproxy bench``: how quick this box is, in a minute."""

import json
from typing import Annotated

import typer
from rich.console import Console

from llmproxy.cli.bench.progress import progress
from llmproxy.cli.bench.report import document, lines
from llmproxy.cli.bench.run import run
from llmproxy.cli.client import base
from llmproxy.cli.failure import CommandFailed
from llmproxy.cli.options import ApiKeyFlag, JsonFlag, UrlFlag

app = typer.Typer(add_completion=False, rich_markup_mode=None)


@app.command()
def bench(
    url: UrlFlag = None,
    model: Annotated[
        str | None, typer.Option("--model", metavar="NAME", help="The model to ask [the first that answers].")
    ] = None,
    seconds: Annotated[
        float,
        typer.Option("--seconds", metavar="N", min=1, show_default=False, help="How long the whole takes, about [60]."),
    ] = 60.0,
    api_key: ApiKeyFlag = None,
    as_json: JsonFlag = False,
) -> None:
    """Measure a running proxy and the model behind it.

    It asks short questions: the same twice, from 1, 4 and 16 callers at once, in the background, as a batch, and
    popular ones. They have a cache of their own and are forgotten after ten minutes. What is begun is finished, so a
    slow model takes longer than it should. The exit code is 1 if a stage had no answer at all.
    """
    where = base(url)
    with progress(Console(stderr=True, highlight=False), seconds) as shown:
        result = run(where, api_key, model, seconds, shown)
    if as_json:
        typer.echo(json.dumps(document(result), indent=2))
    else:
        for line in lines(result):
            typer.echo(line)
    silent = [figures for figures in result.stages if not figures.answers and not figures.skipped]
    if silent:
        raise CommandFailed(f"no answer at all in {', '.join(figures.name for figures in silent)}; {silent[0].reason}")
