"""One log line for every request, as long as there are not too many of them; and its form for machines.

A line never holds a body, a key or a header; that for people may end with a few words of the question. What callers can
choose (paths, models, users, ids) is made printable and cut, so that a request cannot forge a line or steer a terminal.
"""

import json
import logging
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime
from typing import Any, Protocol

import orjson

from llmproxy.wire.exchange import Exchange

ACCESS = "llmproxy.access"

LONGEST = 300

#: what became of requests -> how a number of them is called
PLURALS = {
    "hit": "hits",
    "stale": "stale hits",
    "miss": "misses",
    "joined": "joined requests",
    "bypass": "bypassed requests",
    "only-if-cached": "requests for stored answers only",
}


class LineFormatter(Protocol):
    """How log lines look. Every method gives one line (a record with a traceback: several) with its line feed."""

    def request(self, observed: Exchange) -> str:
        """The line of a finished request."""
        ...

    def summary(self, endpoint: str, cache: str, count: int, at: float) -> str:
        """The line that stands for ``count`` further requests, at the Unix time ``at``. ``cache`` may be ""."""
        ...

    def lost(self, count: int) -> str:
        """The line in the place of ``count`` pieces of log that could not be written in time."""
        ...

    def record(self, record: logging.LogRecord) -> str:
        """The line of anything else that is logged."""
        ...


class JsonFormatter:
    """For machines: one object per line, in ASCII, always with the same keys; null for what is not known."""

    def __init__(self) -> None:
        self._traceback = logging.Formatter()

    def request(self, observed: Exchange) -> str:
        return _json(
            time=_iso(finished_at(observed)),
            level="error" if observed.status >= 500 and observed.failed else "info",
            logger=ACCESS,
            message=f"{observed.method} {observed.path[:LONGEST]} {observed.status}",
            request_id=observed.request_id[:LONGEST],
            caller=observed.caller.name[:LONGEST] or None,
            user=observed.user[:LONGEST] or None,
            session=observed.session[:LONGEST] or None,
            client=observed.client or None,
            method=observed.method,
            path=observed.path[:LONGEST],
            status=observed.status,
            endpoint=observed.endpoint,
            model=observed.model[:LONGEST],
            stream=observed.stream,
            cache=observed.cache,
            reason=observed.reason,
            stored=observed.stored,
            duration_seconds=round(observed.seconds, 6),
            first_byte_seconds=_rounded(observed.first_byte_seconds),
            upstream=observed.upstream,
            upstream_seconds=_rounded(observed.upstream_seconds),
            prompt_tokens=observed.usage.prompt_tokens,
            completion_tokens=observed.usage.completion_tokens,
            error=observed.error[:LONGEST] or None,
        )

    def summary(self, endpoint: str, cache: str, count: int, at: float) -> str:
        return _json(
            time=_iso(at),
            level="info",
            logger=ACCESS,
            message=summed_up(endpoint, cache, count),
            endpoint=endpoint,
            cache=cache or None,
            count=count,
        )

    def lost(self, count: int) -> str:
        return self.record(loss_record(count))

    def record(self, record: logging.LogRecord) -> str:
        return _json(
            time=_iso(record.created),
            level=record.levelname.lower(),
            logger=log_source(record),
            message=record.getMessage(),
            exception=self._traceback.formatException(record.exc_info) if record.exc_info else None,
        )


def finished_at(observed: Exchange) -> float:
    """When the request ended, in Unix seconds."""
    return observed.started_at + observed.seconds


def log_source(record: logging.LogRecord) -> str:
    """The server is not a matter of its own for whoever reads the log."""
    return "llmproxy" if record.name.startswith("uvicorn") else record.name


def summed_up(endpoint: str, cache: str, count: int) -> str:
    """What stands for ``count`` further requests: ``5,900 more hits of chat``."""
    return f"{count:,} more {PLURALS.get(cache, 'requests')} of {endpoint}"


def loss_record(count: int) -> logging.LogRecord:
    """What is logged in the place of ``count`` pieces of log."""
    return logging.LogRecord(__name__, logging.WARNING, "", 0, "%d pieces of log were lost", (count,), None)


def plain(text: str) -> str:
    """A text from elsewhere, cut, in printable characters."""
    cut = text if len(text) <= LONGEST else text[:LONGEST] + "..."
    return cut if cut.isprintable() else cut.encode("unicode_escape").decode("ascii")


def _iso(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).isoformat(timespec="milliseconds")


def duration(seconds: float | None) -> str:
    """Seconds in the unit that fits: ``0.84 ms``, ``120 ms``, ``1.20 s``, ``119.9 s``, ``60 min``, ``10.0 h``; a dash
    if they are not known."""
    if seconds is None:
        return "–"
    if seconds < 1:
        return f"{seconds * 1e3:.0f} ms" if seconds >= 0.01 or not seconds else f"{seconds * 1e3:.2f} ms"
    if seconds < 120:
        return f"{seconds:.2f} s" if seconds < 10 else f"{seconds:.1f} s"
    minutes = seconds / 60
    return f"{minutes:.0f} min" if minutes < 120 else f"{minutes / 60:,.1f} h"


def _rounded(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds, 6)


def _json(**members: Any) -> str:
    try:
        line = orjson.dumps(members)
    except TypeError:
        # lone surrogates, and what is no JSON
        line = b""
    # other characters than ASCII are escaped, and orjson cannot do that
    if line and line.isascii():
        return line.decode("ascii") + "\n"
    return json.dumps(members, separators=(",", ":"), default=str) + "\n"


class AccessLog:
    """Writes the lines of a batch in one piece; of more than ``limit`` requests it lists some and sums up the rest.

    Requests that failed are listed first. With ``failures_only`` nothing else is written.
    """

    def __init__(
        self,
        form: LineFormatter,
        write: Callable[[str], None],
        *,
        failures_only: bool = False,
        limit: int = 100,
        clock: Callable[[], float] = time.time,
        show_totals: Callable[[str], None] | None = None,
    ) -> None:
        """``show_totals`` replaces the line at the bottom of the terminal, None if there is none."""
        self._form = form
        self._write = write
        self._failures_only = failures_only
        self._limit = limit
        self._clock = clock
        self.show_totals = show_totals
        #: whether the lines are for people
        self.is_text = not isinstance(form, JsonFormatter)

    def write(self, batch: Sequence[Exchange], hits: Iterable[tuple[Exchange, int]] = ()) -> None:
        """Writes finished requests: a sink of the batcher.

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
        lines += [self._form.summary(endpoint, cache, count, now) for (endpoint, cache), count in rest.items()]
        if lines:
            self._write("".join(lines))

    def _choose(self, batch: Sequence[Exchange]) -> tuple[Sequence[Exchange], Sequence[Exchange]]:
        if len(batch) <= self._limit:
            return batch, ()
        by_weight = sorted(range(len(batch)), key=lambda index: not batch[index].failed)
        chosen, rest = sorted(by_weight[: self._limit]), by_weight[self._limit :]
        return [batch[index] for index in chosen], [batch[index] for index in rest]
