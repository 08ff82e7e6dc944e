"""The tour as a table that grows while the tour goes on."""

from types import TracebackType
from typing import Self

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

from llmproxy.cli.columns import duration
from llmproxy.cli.demo.tour import TourStep

_COLOURS = {"HIT": "green", "MISS": "yellow", "JOINED": "cyan"}


class TourTable:
    """Use as a context manager; ``add`` shows a step."""

    def __init__(self, console: Console):
        # every row fits one line of an 80 column terminal
        self._table = Table(
            title="A tour through the official openai client",
            title_justify="left",
            box=SIMPLE_HEAD,
            padding=(0, 1, 0, 0),
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
            step.asked if step.flaw is None else f"{step.asked}: {step.flaw}",
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
