"""A batch on its way: a bar on a terminal, now and then a line elsewhere."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from time import monotonic
from typing import Protocol

from rich.console import Console
from rich.progress import BarColumn, Progress, ProgressColumn, Task, TextColumn, TimeRemainingColumn
from rich.text import Text

from llmproxy.cli.batch_client import BatchStatus

#: at least, between two lines that differ in numbers only
_LINE_SECONDS = 5.0


class BatchProgress(Protocol):
    """``show`` gets the batch's present status, ``wait`` the reason why it is not known."""

    def show(self, batch: BatchStatus) -> None: ...
    def wait(self, reason: str) -> None: ...


@contextmanager
def progress(console: Console) -> Iterator[BatchProgress]:
    if not console.is_terminal:
        yield BatchProgressLines(lambda line: console.print(line, markup=False, soft_wrap=True))
        return
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        TextColumn("{task.fields[count]}", markup=False),
        _Rate(),
        TextColumn("{task.fields[note]}", markup=False),
        TimeRemainingColumn(compact=True),
    )
    with Progress(*columns, console=console, transient=True) as bar:
        yield BatchProgressBar(bar)


class BatchProgressBar:
    """On a terminal."""

    def __init__(self, bar: Progress) -> None:
        self._bar = bar
        self._task = bar.add_task("waiting", total=None, count="", note="")

    def show(self, batch: BatchStatus) -> None:
        self._bar.update(
            self._task,
            description=batch.status.replace("_", " "),
            # it is not known before the input was read
            total=batch.total or None,
            completed=batch.ended,
            count=f"{batch.ended:,}/{batch.total:,}" if batch.total else "",
            note=note(batch),
        )

    def wait(self, reason: str) -> None:
        self._bar.update(self._task, description="waiting for the proxy")


class BatchProgressLines:
    """Elsewhere. ``clock`` is monotonic, in seconds."""

    def __init__(self, write_line: Callable[[str], None], clock: Callable[[], float] = monotonic) -> None:
        self._write_line = write_line
        self._clock = clock
        self._last_line = ""
        self._status = ""
        self._at = 0.0
        self._first: tuple[float, int] | None = None

    def show(self, batch: BatchStatus) -> None:
        now = self._clock()
        if self._first is None:
            self._first = now, batch.ended
        line = f"{batch.id}: {batch.status.replace('_', ' ')}"
        if batch.total:
            line += f", {batch.ended:,} of {batch.total:,}"
            line += "".join(f", {part}" for part in (note(batch), self._rate(now, batch)) if part)
        if batch.status == self._status and (line == self._last_line or now - self._at < _LINE_SECONDS):
            return
        self._status, self._last_line, self._at = batch.status, line, now
        self._write_line(line)

    def wait(self, reason: str) -> None:
        if self._last_line != reason:
            self._last_line, self._status = reason, ""
            self._write_line(reason)

    def _rate(self, now: float, batch: BatchStatus) -> str:
        assert self._first is not None
        since, before = self._first
        if now - since < 1 or batch.ended == before:
            return ""
        rate = (batch.ended - before) / (now - since)
        return f"{rate:,.1f}/s, {(batch.total - batch.ended) / rate:,.0f} s left"


def note(batch: BatchStatus) -> str:
    """Failures and hits, if there are any."""
    parts = ((batch.failed, "failed"), (batch.hits, "hits"))
    return ", ".join(f"{number:,} {word}" for number, word in parts if number)


class _Rate(ProgressColumn):
    def render(self, task: Task) -> Text:
        return Text("" if task.speed is None else f"{task.speed:,.1f}/s", "cyan")
