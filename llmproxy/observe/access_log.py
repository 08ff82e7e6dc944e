"""One log line for every request, as long as there are not too many of them."""

import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence

from llmproxy.observe.formatters import LineFormatter
from llmproxy.observe.log_writer import AsyncLogWriter
from llmproxy.wire.exchange import Exchange


class AccessLog:
    """Writes the lines of a batch in one piece; of more than ``limit`` requests it lists some and sums up the rest.

    Requests that failed are listed first. With ``failures_only`` nothing else is written.
    """

    def __init__(
        self,
        form: LineFormatter,
        outlet: AsyncLogWriter,
        *,
        failures_only: bool = False,
        limit: int = 100,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._form = form
        self._outlet = outlet
        self._failures_only = failures_only
        self._limit = limit
        self._clock = clock

    def write(self, batch: Sequence[Exchange], hits: Iterable[tuple[Exchange, int]] = ()) -> None:
        """Writes finished requests: a sink of the ledger.

        ``hits`` are answers with the number of requests that got them and are not in ``batch``; they are summed up.
        """
        if self._failures_only:
            batch, hits = [observed for observed in batch if observed.failed], ()
        listed, unlisted = self._choose(batch)
        rest: Counter[tuple[str, str]] = Counter()
        for observed in unlisted:
            rest[observed.endpoint, observed.cache or ""] += 1
        for answered, count in hits:
            rest[answered.endpoint, answered.cache or ""] += count
        lines = [self._form.request(observed) for observed in listed]
        now = self._clock()
        lines += [self._form.others(endpoint, cache, count, now) for (endpoint, cache), count in rest.items()]
        if lines:
            self._outlet.write("".join(lines))

    def _choose(self, batch: Sequence[Exchange]) -> tuple[Sequence[Exchange], Sequence[Exchange]]:
        if len(batch) <= self._limit:
            return batch, ()
        by_weight = sorted(range(len(batch)), key=lambda index: not batch[index].failed)
        chosen, rest = sorted(by_weight[: self._limit]), by_weight[self._limit :]
        return [batch[index] for index in chosen], [batch[index] for index in rest]
