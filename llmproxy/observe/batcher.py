"""Finished requests wait here to be counted, logged and recorded in batches, off the hot path."""

import asyncio
import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Generic, TypeVar

from llmproxy.runtime.background import LogOnce

logger = logging.getLogger(__name__)

T = TypeVar("T")
Sink = Callable[[Sequence[T]], None]


class Batcher(Generic[T]):
    """Hands items to every sink, in order, at most ``interval`` seconds after they were added.

    A sink gets a batch of at most ``batch`` items at a time, with a turn of the event loop between two batches, so
    that a backlog does not hold up requests. ``bound`` items waiting are handed over at once. A sink that raises
    loses its batch, is reported to ``on_fault(name)``, logged once until it works again, and does not stop the
    others. Belongs to one event loop; sinks must not block.
    """

    def __init__(
        self,
        sinks: Mapping[str, Sink[T]],
        *,
        on_fault: Callable[[str], None] = lambda sink: None,
        interval: float = 0.1,
        batch: int = 2_000,
        bound: int = 20_000,
    ) -> None:
        self._sinks = dict(sinks)
        self._on_fault = on_fault
        self._interval = interval
        self._batch = batch
        self._bound = bound
        self._items: list[T] = []
        self._wake: asyncio.Handle | None = None
        self._logs = {name: LogOnce(logger) for name in self._sinks}
        self._closed = False

    def __len__(self) -> int:
        """How many wait."""
        return len(self._items)

    def add(self, item: T) -> None:
        """Takes note of ``item``. Costs an append; raises nothing."""
        items = self._items
        items.append(item)
        if len(items) == 1:
            self._arm()
        elif len(items) >= self._bound:
            self.drain()

    def drain(self) -> None:
        """Hands over everything that waits, now."""
        self._disarm()
        while self._items:
            self._hand_over()

    def close(self) -> None:
        """Drains. What is added later is handed over at once."""
        self._closed = True
        self.drain()

    def _arm(self) -> None:
        if self._closed:
            self.drain()
        else:
            self._wake = asyncio.get_running_loop().call_later(self._interval, self._turn)

    def _disarm(self) -> None:
        if self._wake is not None:
            self._wake.cancel()
            self._wake = None

    def _turn(self) -> None:
        self._hand_over()
        self._wake = asyncio.get_running_loop().call_soon(self._turn) if self._items else None

    def _hand_over(self) -> None:
        if len(self._items) <= self._batch:
            batch, self._items = self._items, []
        else:
            batch, self._items = self._items[: self._batch], self._items[self._batch :]
        for name, sink in self._sinks.items():
            try:
                sink(batch)
            except Exception as error:  # noqa: BLE001 - whatever ails a sink, requests and the other sinks go on
                self._on_fault(name)
                message = "%s failed for a batch of requests; silent until it works again"
                self._logs[name].failed(message, name, error=error)
            else:
                self._logs[name].worked()
