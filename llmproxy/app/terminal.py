"""What the log for people has beside its lines of requests: what each asked, and what all of them add up to."""

import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

from llmproxy.app.state import AppState
from llmproxy.config.settings import Settings
from llmproxy.history.detail import HEAD, TAIL, preview, preview_of_pieces
from llmproxy.history.record import Redactor
from llmproxy.jobs import queries
from llmproxy.observe.access_log import AccessLog, duration
from llmproxy.observe.text_log import Question
from llmproxy.runtime.background import Periodic
from llmproxy.wire.exchange import Exchange

log = logging.getLogger(__name__)

#: how often the line at the bottom of a terminal is written, and how often a line of totals if there is none
_BOTTOM_SECONDS, _LINE_SECONDS = 1.0, 600.0
#: the queue is counted by a query, at every so many writings of the line at the bottom
_QUEUE_TURNS = 5


def question_for(settings: Settings) -> Question:
    """A line of what a request asked, without what must not be kept; "" if bodies are not to be kept."""
    redactor = Redactor(settings.history_redact)

    def question(exchange: Exchange) -> str:
        body = exchange.request_body
        line = preview(body) if len(body) <= HEAD + TAIL else preview_of_pieces(body[-TAIL:], body[:HEAD])
        return redactor.text(line) if redactor else line

    return question if settings.history_bodies else lambda exchange: ""


class Totals:
    """Shows what the requests since start add up to, in the log's line at the bottom or as a line now and then."""

    def __init__(self, log: AccessLog, state: AppState) -> None:
        self._log = log
        self._state = state
        self._turn = 0
        self._waiting = 0
        self._shown = ""

    @property
    def seconds(self) -> float:
        """How often ``show`` is due."""
        return _LINE_SECONDS if self._log.show_totals is None else _BOTTOM_SECONDS

    async def show(self) -> None:
        """Shows them if they are others than before. Raises nothing."""
        if self._log.show_totals is None or self._turn % _QUEUE_TURNS == 0:
            await self._count_queue()
        self._turn += 1
        line = self.line()
        if line == self._shown:
            return
        self._shown = line
        if self._log.show_totals is not None:
            self._log.show_totals(line)
        else:
            log.info("so far: %s", line)

    def line(self) -> str:
        """As in ``128 requests · 62.0% hits · saved 3.20 s, 12,400 tokens · 2 in work · 14 queued``."""
        figures = self._state.admin.rates.snapshot()
        counts, saved = figures["since_start"], figures["saved"]
        requests = sum(number for name, number in counts.items() if name != "hit_rate")
        rate = counts["hit_rate"]
        tokens = saved["prompt_tokens"] + saved["completion_tokens"]
        parts = [
            f"{requests:,} {'request' if requests == 1 else 'requests'}",
            "" if rate is None else f"{rate:.1%} hits",
            f"saved {duration(saved['upstream_seconds'])}, {tokens:,} tokens" if tokens or rate else "",
            f"{len(self._state.in_flight):,} in work",
            f"{self._waiting:,} queued" if self._waiting else "",
        ]
        return " · ".join(filter(None, parts))

    async def _count_queue(self) -> None:
        if self._state.jobs is not None:
            # a database that does not answer is reported elsewhere
            with suppress(Exception):
                self._waiting = (await queries.backlog(self._state.jobs.store)).waiting


@asynccontextmanager
async def totals_shown(log: AccessLog, state: AppState) -> AsyncIterator[None]:
    """Shows the totals while this is open, if the log is for people."""
    if not log.is_text:
        yield
        return
    totals = Totals(log, state)
    async with Periodic("totals of the log", totals.seconds, totals.show, at_once=log.show_totals is not None):
        yield
