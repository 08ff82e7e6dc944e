"""The log for people: aligned columns that fit a terminal, what became of the request first, what was asked last.

A column's width is fixed, so that lines stand below each other however they come.
"""

import logging
import time
import unicodedata
from collections.abc import Callable
from dataclasses import dataclass

from llmproxy.observe.access_log import duration, finished_at, log_source, loss_record, plain, summed_up
from llmproxy.wire.endpoints import ENDPOINTS
from llmproxy.wire.exchange import Exchange
from llmproxy.wire.vocabulary import CacheStatus, Reason

RED, GREEN, YELLOW, CYAN, DIM = "31", "32", "33", "36", "2"

_CACHE_COLOURS = {CacheStatus.HIT: GREEN, CacheStatus.STALE: YELLOW, CacheStatus.JOINED: CYAN, CacheStatus.BYPASS: DIM}
_LEVELS = {"WARNING": "warn", "CRITICAL": "error"}

#: characters of a line: below the first some columns are left out, beyond the second no more is shown
_ROOMY, _WIDEST = 100, 160
_OUTCOME, _ID = 6, 5


@dataclass(frozen=True, slots=True)
class _Column:
    name: str
    width: int
    #: numbers stand at its right
    right: bool = False
    #: left out on a narrow terminal
    roomy: bool = False

    def cell(self, text: str) -> str:
        width = self.width
        if len(text) <= width and text.isascii():
            return text.rjust(width) if self.right else text.ljust(width)
        return fitted(text, width)


_ENDPOINT, _MODEL, _USER = _Column("endpoint", 10), _Column("model", 12), _Column("user", 8, roomy=True)
_TOKENS, _TIME, _FIRST = (
    _Column("tokens", 9, right=True),
    _Column("took", 7, right=True),
    _Column("first", 7, right=True, roomy=True),
)
#: reasons that the outcome says already
_PLAIN_REASONS = frozenset({Reason.MEMORY, Reason.SQL, Reason.TIER, Reason.INPUTS, Reason.ABSENT, Reason.PASS_THROUGH})

_CACHED = frozenset(row.name for row in ENDPOINTS)

Question = Callable[[Exchange], str]


class TextFormatter:
    """For people. ``colour`` uses ANSI escapes; ``question`` gives a line of what a request asked, "" for nothing;
    ``columns`` how many characters fit into a line."""

    def __init__(
        self,
        *,
        colour: bool,
        question: Question = lambda exchange: "",
        columns: Callable[[], int] = lambda: _ROOMY,
        dated: bool = False,
    ) -> None:
        """``dated`` puts the day before the time of day."""
        self._colour = colour
        self._question = question
        self._columns = columns
        self._clock, width = ("%m-%d %H:%M:%S", 14) if dated else ("%H:%M:%S", 8)
        times = (_Column("", _OUTCOME), _Column("time", width))
        self._all = (*times, _ENDPOINT, _MODEL, _USER, _TOKENS, _TIME, _FIRST, _Column("id", _ID))
        #: what all columns take, and those that a narrow terminal shows, with a blank behind each
        self._wide = sum(column.width + 1 for column in self._all)
        self._narrow = sum(column.width + 1 for column in self._all if not column.roomy)
        self._traceback = logging.Formatter("%(message)s")

    def head(self) -> str:
        """The names of the columns, without a line feed."""
        is_roomy = self._columns() >= _ROOMY
        cells = [column.cell(column.name) for column in self._all if is_roomy or not column.roomy]
        return self._paint(" ".join([*cells, "question"]), DIM)

    def request(self, observed: Exchange) -> str:
        usage, tokens = observed.usage, ""
        if usage.prompt_tokens is not None or usage.completion_tokens is not None:
            tokens = f"{_short(usage.prompt_tokens or 0)}+{_short(usage.completion_tokens or 0)}"
        first = observed.first_byte_seconds
        texts = (
            _outcome(observed),
            self._time(finished_at(observed)),
            plain("" if observed.endpoint == "other" else observed.endpoint),
            plain(observed.model),
            plain(observed.user or observed.caller.name),
            tokens,
            duration(observed.seconds),
            "" if first is None else duration(first),
            plain(observed.request_id[-_ID:]),
        )
        columns = self._columns()
        # on a narrow terminal some are left out
        left_out = columns < _ROOMY
        found = zip(self._all, texts, strict=True)
        outcome, *cells, id = [column.cell(text) for column, text in found if not (left_out and column.roomy)]
        room = min(columns, _WIDEST) - (self._narrow if left_out else self._wide)
        cells = [self._paint(outcome, _outcome_colour(observed)), *cells, self._paint(id, DIM)]
        return f"{' '.join(cells)} {self._subject(observed, max(room, 8))}".rstrip() + "\n"

    def summary(self, endpoint: str, cache: str, count: int, at: float) -> str:
        return f"{'':{_OUTCOME}} {self._time(at)} ... and {summed_up(endpoint, cache, count)}\n"

    def lost(self, count: int) -> str:
        return self.record(loss_record(count))

    def record(self, record: logging.LogRecord) -> str:
        colour = RED if record.levelno >= logging.ERROR else YELLOW if record.levelno >= logging.WARNING else ""
        level = fitted(_LEVELS.get(record.levelname, record.levelname.lower()), _OUTCOME)
        text = self._traceback.format(record)
        return f"{self._paint(level, colour)} {self._time(record.created)} {log_source(record)}: {text}\n"

    def _time(self, at: float) -> str:
        return time.strftime(self._clock, time.localtime(at))

    def _subject(self, observed: Exchange, room: int) -> str:
        """What it asked and why it was no plain hit or miss; of what failed, why. An error is never cut to the line."""
        if observed.error and observed.cache is not CacheStatus.ONLY_IF_CACHED:
            return self._paint(plain(observed.error), RED)
        is_cached = observed.endpoint in _CACHED
        text = self._question(observed) if is_cached else f"{observed.method} {observed.path}"
        if observed.reason is not None and observed.reason not in _PLAIN_REASONS:
            text = f"({observed.reason}) {text}"
        return fitted(plain(text), room).rstrip()

    def _paint(self, text: str, colour: str) -> str:
        return f"\x1b[{colour}m{text}\x1b[0m" if self._colour and colour else text


def fitted(text: str, width: int) -> str:
    """A printable text filled up or cut to a width in a terminal's cells."""
    if text.isascii():
        return f"{text:{width}}" if len(text) <= width else f"{text[: width - 1]}…"
    cells = list(map(_cells, text))
    if sum(cells) <= width:
        return text + " " * (width - sum(cells))
    taken, end = 1, 0
    while taken + cells[end] <= width:
        taken += cells[end]
        end += 1
    return f"{text[:end]}…{' ' * (width - taken)}"


def _cells(character: str) -> int:
    """How many cells of a terminal a printable character takes."""
    if unicodedata.combining(character):
        return 0
    return 2 if unicodedata.east_asian_width(character) in "WF" else 1


def _short(count: int) -> str:
    """A number in few characters: ``9999``, ``123k``, ``12M``."""
    if count < 10_000:
        return str(count)
    return f"{count // 1_000}k" if count < 1_000_000 else f"{count // 1_000_000}M"


def _outcome(observed: Exchange) -> str:
    """What the cache did, or the status of what failed or of what the cache has no part in."""
    if observed.cache is CacheStatus.ONLY_IF_CACHED:
        return "MISS"
    if observed.cache is not None and observed.status < 400:
        return observed.cache.upper()
    return f"{observed.status:3d}" if observed.status else "---"


def _outcome_colour(observed: Exchange) -> str:
    if observed.cache is CacheStatus.ONLY_IF_CACHED:
        return YELLOW
    if observed.cache is not None and observed.status < 400:
        return _CACHE_COLOURS.get(observed.cache, "")
    return {2: GREEN, 3: CYAN, 4: YELLOW, 5: RED}.get(observed.status // 100, "")
