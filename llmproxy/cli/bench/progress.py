"""A run on its way: a bar on a terminal, a line a stage elsewhere."""

from collections.abc import Iterator
from contextlib import contextmanager
from time import monotonic
from typing import Protocol

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn


class BenchProgress(Protocol):
    """``stage`` is told what is measured from now on, ``answered`` of every answer."""

    def stage(self, name: str) -> None: ...
    def answered(self) -> None: ...


@contextmanager
def progress(console: Console, seconds: float) -> Iterator[BenchProgress]:
    """``seconds`` is how long the whole should take."""
    if not console.is_terminal:
        yield BenchProgressLines(console)
        return
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.fields[count]:,} answers"),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=console, transient=True) as bar:
        yield BenchProgressBar(bar, seconds)


class BenchProgressBar:
    """On a terminal: it is full when the time is over."""

    def __init__(self, bar: Progress, seconds: float) -> None:
        self._bar = bar
        self._task = bar.add_task("looking", total=seconds, count=0)
        self._began = monotonic()
        self._count = 0

    def stage(self, name: str) -> None:
        self._bar.update(self._task, description=name)

    def answered(self) -> None:
        self._count += 1
        self._bar.update(self._task, completed=monotonic() - self._began, count=self._count)


class BenchProgressLines:
    """Elsewhere."""

    def __init__(self, console: Console) -> None:
        self._console = console

    def stage(self, name: str) -> None:
        self._console.print(name, markup=False, soft_wrap=True)

    def answered(self) -> None:
        """One of them is not worth a line."""
