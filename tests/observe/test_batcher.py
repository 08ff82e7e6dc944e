import asyncio
import logging
from collections.abc import Sequence

import pytest

from llmproxy.observe.batcher import Batcher


class Gathered:
    """A sink that remembers its batches, and says when it has seen enough."""

    def __init__(self, enough: int = 1) -> None:
        self.batches: list[list[int]] = []
        self.done = asyncio.Event()
        self._enough = enough

    @property
    def items(self) -> list[int]:
        return [item for batch in self.batches for item in batch]

    def __call__(self, batch: Sequence[int]) -> None:
        self.batches.append(list(batch))
        if len(self.items) >= self._enough:
            self.done.set()


def broken(batch: Sequence[int]) -> None:
    raise RuntimeError("no")


async def test_hands_over_by_itself_in_order() -> None:
    sink = Gathered(3)
    ledger = Batcher[int]({"sink": sink}, interval=0.0)
    for item in range(3):
        ledger.add(item)
    assert sink.batches == []
    await sink.done.wait()
    assert sink.batches == [[0, 1, 2]]


async def test_works_again_after_it_was_empty() -> None:
    sink = Gathered(1)
    ledger = Batcher[int]({"sink": sink}, interval=0.0)
    ledger.add(1)
    await sink.done.wait()
    sink.done.clear()
    ledger.add(2)
    await sink.done.wait()
    assert sink.items == [1, 2]


async def test_drain_hands_over_at_once_and_nothing_twice() -> None:
    sink = Gathered()
    ledger = Batcher[int]({"sink": sink}, interval=0.0)
    ledger.add(1)
    ledger.drain()
    assert sink.items == [1]
    ledger.drain()
    await asyncio.sleep(0)
    assert sink.batches == [[1]]


async def test_a_backlog_is_handed_over_in_batches_with_turns_for_others_between() -> None:
    turns: list[str] = []
    sink = Gathered(6)

    def note(batch: Sequence[int]) -> None:
        turns.append("sink")
        asyncio.get_running_loop().call_soon(turns.append, "other")

    ledger = Batcher[int]({"note": note, "sink": sink}, interval=0.0, batch=2)
    for item in range(6):
        ledger.add(item)
    await sink.done.wait()
    assert sink.batches == [[0, 1], [2, 3], [4, 5]]
    assert turns[:4] == ["sink", "other", "sink", "other"]


async def test_a_full_ledger_hands_over_inline() -> None:
    sink = Gathered()
    ledger = Batcher[int]({"sink": sink}, interval=3600.0, bound=4)
    for item in range(5):
        ledger.add(item)
    assert sink.items == [0, 1, 2, 3]
    ledger.close()
    assert sink.items == [0, 1, 2, 3, 4]


async def test_what_comes_after_close_is_handed_over_at_once() -> None:
    sink = Gathered()
    ledger = Batcher[int]({"sink": sink}, interval=3600.0)
    ledger.close()
    ledger.add(1)
    assert sink.items == [1]


async def test_a_broken_sink_is_counted_logged_once_and_stops_nobody(caplog: pytest.LogCaptureFixture) -> None:
    faults: list[str] = []
    sink = Gathered()
    ledger = Batcher[int]({"broken": broken, "sink": sink}, on_fault=faults.append)
    for item in range(3):
        ledger.add(item)
        ledger.drain()
    assert sink.items == [0, 1, 2]
    assert faults == ["broken"] * 3
    assert [record.levelno for record in caplog.records] == [logging.ERROR]


async def test_a_sink_that_works_again_is_reported_again(caplog: pytest.LogCaptureFixture) -> None:
    def moody(batch: Sequence[int]) -> None:
        if batch[0] != 1:
            broken(batch)

    ledger = Batcher[int]({"moody": moody})
    for item in range(3):
        ledger.add(item)
        ledger.drain()
    assert len(caplog.records) == 2


async def test_an_item_added_by_a_sink_is_not_lost() -> None:
    sink = Gathered()

    def echo(batch: Sequence[int]) -> None:
        if batch[0] < 3:
            ledger.add(batch[0] + 1)

    ledger = Batcher[int]({"echo": echo, "sink": sink}, interval=3600.0)
    ledger.add(1)
    ledger.close()
    assert sorted(sink.items) == [1, 2, 3]
