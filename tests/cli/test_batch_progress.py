"""How a batch on its way is shown: lines where nobody looks, a bar on a terminal."""

import io
from collections.abc import Callable
from typing import Any

import pytest
from rich.console import Console

from llmproxy.cli.batch_client import BatchStatus, parse_status
from llmproxy.cli.batch_progress import BatchProgressLines, progress
from llmproxy.cli.options import CommandFailed


def batch(status: str, done: int = 0, total: int = 0, **more: Any) -> BatchStatus:
    counts = {"total": total, "completed": done, "failed": 0}
    return parse_status({"id": "batch_1", "status": status, "created_at": 0, "request_counts": counts} | more)


class Reader:
    """What ``BatchProgressLines`` said, and a clock that is set by hand."""

    def __init__(self) -> None:
        self.said: list[str] = []
        self.now = 100.0
        self.lines = BatchProgressLines(self.said.append, lambda: self.now)

    def after(self, seconds: float, parse_status: BatchStatus) -> None:
        self.now += seconds
        self.lines.show(parse_status)


def test_a_change_of_status_is_said_at_once_and_numbers_now_and_then() -> None:
    reader = Reader()
    reader.after(0, batch("validating"))
    reader.after(0, batch("validating"))
    reader.after(0, batch("in_progress", 0, 1000))
    reader.after(1, batch("in_progress", 10, 1000))
    reader.after(9, batch("in_progress", 100, 1000, llmproxy={"hits": 5}))
    reader.after(9, batch("in_progress", 100, 1000, llmproxy={"hits": 5}))
    reader.after(0, batch("completed", 1000, 1000))
    assert reader.said == [
        "batch_1: validating",
        "batch_1: in progress, 0 of 1,000",
        "batch_1: in progress, 100 of 1,000, 5 hits, 10.0/s, 90 s left",
        "batch_1: in progress, 100 of 1,000, 5 hits, 5.3/s, 171 s left",
        "batch_1: completed, 1,000 of 1,000, 52.6/s, 0 s left",
    ]


def test_what_was_done_before_this_run_is_not_its_rate() -> None:
    reader = Reader()
    reader.after(0, batch("in_progress", 500, 1000))
    reader.after(10, batch("in_progress", 600, 1000))
    assert reader.said[-1] == "batch_1: in progress, 600 of 1,000, 10.0/s, 40 s left"


def test_a_proxy_that_is_away_is_said_once() -> None:
    reader = Reader()
    reader.after(0, batch("in_progress", 1, 2))
    reader.lines.wait("no answer")
    reader.lines.wait("no answer")
    reader.after(0, batch("in_progress", 1, 2))
    assert reader.said == ["batch_1: in progress, 1 of 2", "no answer", "batch_1: in progress, 1 of 2"]


def test_on_a_terminal_it_is_a_bar() -> None:
    screen = io.StringIO()
    with progress(Console(file=screen, force_terminal=True, width=100, color_system=None)) as shown:
        shown.show(batch("validating"))
        shown.show(batch("in_progress", 1500, 3000, llmproxy={"hits": 7}))
        shown.wait("no answer")
        # the last state is drawn when the bar ends
        shown.show(batch("in_progress", 2000, 3000, llmproxy={"hits": 7}))
    last = screen.getvalue()
    assert "in progress" in last
    assert "2,000/3,000" in last
    assert "7 hits" in last


@pytest.mark.parametrize(
    "spoilt",
    [
        lambda good: {},
        lambda good: good | {"request_counts": None},
        lambda good: good | {"request_counts": {"total": "many", "completed": 0, "failed": 0}},
        lambda good: good | {"usage": "much"},
        lambda good: good | {"errors": [1]},
        lambda good: good | {"llmproxy": []} | {"status": "completed", "completed_at": "noon"},
    ],
)
def test_a_document_that_is_no_batch_is_a_failure(spoilt: Callable[[dict[str, Any]], dict[str, Any]]) -> None:
    counts = {"total": 1, "completed": 1, "failed": 0}
    good = {"id": "batch_1", "status": "in_progress", "created_at": 0, "request_counts": counts}
    assert parse_status(good).total == 1
    with pytest.raises(CommandFailed, match="not understood"):
        parse_status(spoilt(good))
