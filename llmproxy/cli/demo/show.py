"""The demo from start to end: start everything, the tour as a growing table, serve on."""

from threading import Event
from types import TracebackType
from typing import Self

import openai
from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

from llmproxy.app.banner import exports
from llmproxy.cli.demo.llama import serving
from llmproxy.cli.demo.servers import CHAT_MODEL, Stack, free_port, remove_database, running
from llmproxy.cli.demo.tour import Tour, TourStep
from llmproxy.cli.options import CommandFailed
from llmproxy.config.values import default_database
from llmproxy.observe.access_log import duration

_YOURS = """\
{exports}
curl -i $OPENAI_BASE_URL/chat/completions -H 'content-type: application/json' \\
  -d '{{"model": "{model}",
       "messages": [{{"role": "user", "content": "Why is the sky blue?"}}]}}'"""


def show(*, once: bool, port: int) -> None:
    """``once`` ends after the tour, and leaves its files only where it went wrong.

    Raises ``CommandFailed`` if a step is not what it should be, or something does not start or stops by itself.
    """
    console = Console(highlight=False)
    console.print("Starting llama.cpp with SmolLM2-135M (chat and embeddings) and the proxy in front of it ...")
    with running(default_database().parent, port) as stack:
        _tour(console, stack)
        if not once:
            _serve_on(console, stack)
    if once:
        remove_database(stack.database)
        stack.log.unlink()


def serve_model(port: int) -> None:
    """Serves the chat model alone until Ctrl-C. Raises ``CommandFailed`` if the port is taken."""
    with serving(CHAT_MODEL, free_port(port)) as url:
        print(f"{CHAT_MODEL} (SmolLM2-135M on llama.cpp) serves at {url} until Ctrl-C.", flush=True)
        Event().wait()


def _tour(console: Console, stack: Stack) -> None:
    failed = 0
    with openai.OpenAI(base_url=f"{stack.url}/v1", api_key="none", max_retries=0) as client:
        tour = Tour(client, stack)
        console.print()
        with TourTable(console) as table:
            for step in tour.steps():
                table.add(step)
                failed += step.flaw is not None
        console.print(Text.assemble("\nThe model's words: ", (tour.answer, "italic")))
    if failed:
        raise CommandFailed(
            f"{failed} {'step' if failed == 1 else 'steps'} of the tour went wrong; the log is {stack.log}"
        )


def _serve_on(console: Console, stack: Stack) -> None:
    # from the first word on: who sees what to paste may as well press Ctrl-C
    try:
        # to be pasted: no line may be broken
        yours = _YOURS.format(exports=exports(stack.url), model=CHAT_MODEL)
        for text in (
            f"\nThe proxy serves on at {stack.url}; its log is {stack.log}. Ctrl-C ends it.",
            f"\nLook at it in a browser: {stack.url}/ui",
            f"\nYours to try, in another terminal:\n\n{yours}",
        ):
            console.print(text, soft_wrap=True, markup=False)
        code = stack.proxy.wait()
    except KeyboardInterrupt:
        console.print("\nStopping ...")
        return
    raise CommandFailed(f"the proxy ended by itself with exit code {code}; the log is {stack.log}")


_COLOURS = {"HIT": "green", "MISS": "yellow", "JOINED": "cyan"}


class TourTable:
    """Use as a context manager; ``add`` shows a step."""

    def __init__(self, console: Console):
        # every row fits one line of an 80 column terminal
        self._table = Table(
            title="A tour through the official openai client",
            title_justify="left",
            # as the tables of all verbs are
            box=None,
            header_style="dim",
            padding=(0, 2, 0, 0),
            pad_edge=False,
            show_edge=False,
        )
        self._table.add_column("")
        self._table.add_column("what was asked")
        self._table.add_column("X-Cache", no_wrap=True)
        self._table.add_column("first token", justify="right", no_wrap=True)
        self._table.add_column("total", justify="right", no_wrap=True)
        self._table.add_column("speed-up", justify="right", no_wrap=True)
        self._live = Live(self._table, console=console, refresh_per_second=10)

    def add(self, step: TourStep) -> None:
        right = step.flaw is None
        self._table.add_row(
            Text("✓", "green") if right else Text("✗", "bold red"),
            step.question if step.flaw is None else f"{step.question}: {step.flaw}",
            Text(step.cache, _COLOURS.get(step.cache.split(" ")[-1], "")),
            duration(step.first),
            duration(step.total),
            Text(f"{step.speed_up:,.0f} x", "bold green") if step.speed_up else "",
        )

    def __enter__(self) -> Self:
        self._live.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._live.__exit__(kind, error, trace)
