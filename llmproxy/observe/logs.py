"""Sets up logging: one format and one writing thread for requests, for our own messages, and for what libraries log."""

import logging
import os
import queue
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import TextIO

from llmproxy.config.settings import LogFormat, LogLevel
from llmproxy.observe.access_log import AccessLog, JsonFormatter, LineFormatter
from llmproxy.observe.bottom_line import BottomLine, can_move, columns_of
from llmproxy.observe.text_log import Question, TextFormatter


@dataclass(frozen=True, slots=True)
class _Totals:
    """What the line at the bottom is to say."""

    text: str


class AsyncLogWriter:
    """Writes text to a stream in the order given, without ever blocking the writer.

    At most ``bound`` pieces wait; what finds no room is counted, and reported by the line ``lost(count)`` as soon as
    the stream flows again. Usable from any thread. After ``close`` pieces are written directly.

    On a terminal, ``bottom`` keeps a line below all of them.
    """

    def __init__(
        self, stream: TextIO, *, lost: Callable[[int], str], bound: int = 1_000, bottom: BottomLine | None = None
    ) -> None:
        self.stream = stream
        self._bottom = bottom
        self._waiting: queue.Queue[str | _Totals | None] = queue.Queue(bound)
        self._lost_line = lost
        self._lost = 0
        self._closed = False
        self._thread = threading.Thread(target=self._run, name="log outlet", daemon=True)
        self._thread.start()

    def write(self, text: str) -> None:
        """Takes whole lines, each with its line feed. Raises nothing."""
        if self._closed:
            # a thread that outlived its limit is stuck in the stream; nobody else should be
            if not self._thread.is_alive():
                self._put_out(text)
            return
        try:
            self._waiting.put_nowait(text)
        except queue.Full:
            self._lost += 1

    def show_totals(self, text: str) -> None:
        """Replaces the line at the bottom, if there is one. One that finds no room is left out."""
        with suppress(queue.Full):
            self._waiting.put_nowait(_Totals(text))

    def close(self, limit: float = 2.0) -> None:
        """Waits until everything is written, at most ``limit`` seconds. Safe to call twice."""
        if self._closed:
            return
        self._closed = True
        self.show_totals("")
        try:
            self._waiting.put(None, timeout=limit)
        except queue.Full:
            return
        self._thread.join(limit)

    def _run(self) -> None:
        while (piece := self._waiting.get()) is not None:
            if isinstance(piece, _Totals):
                if self._bottom is not None:
                    self._put_out(self._bottom.replace(piece.text))
                continue
            lost, self._lost = self._lost, 0
            text = piece + self._lost_line(lost) if lost else piece
            self._put_out(text if self._bottom is None else self._bottom.above(text))

    def _put_out(self, text: str) -> None:
        try:
            self.stream.write(text)
            self.stream.flush()
        except (OSError, ValueError):
            # The stream is gone, or cannot encode it: there is nowhere left to say so.
            self._lost += 1


#: the logger above all of this program
PACKAGE = "llmproxy"
#: the server's loggers: its messages are ours, its access log is replaced
SERVER = ("uvicorn", "uvicorn.error", "uvicorn.asgi")
SERVER_ACCESS = "uvicorn.access"


class LogHandler(logging.Handler):
    """Brings what is logged into the form and to the outlet, and closes the outlet at the end of the program."""

    def __init__(self, form: LineFormatter, outlet: AsyncLogWriter) -> None:
        super().__init__()
        self._form = form
        self._outlet = outlet

    def emit(self, record: logging.LogRecord) -> None:
        try:
            line = self._form.record(record)
        except Exception:  # noqa: BLE001 - as the library does: a message's arguments may be anything
            self.handleError(record)
        else:
            self._outlet.write(line)

    def close(self) -> None:
        self._outlet.close()
        super().close()


def configure(
    level: LogLevel, format: LogFormat, stream: TextIO, question: Question = lambda exchange: ""
) -> AccessLog:
    """Has everything logged to ``stream`` from ``level`` on (libraries: warnings at least), replacing other set-ups.

    Returns the log of requests. Those that did not fail are logged at ``info``; their lines for people end with what
    ``question`` gives. On a terminal, the log has a line for totals at its bottom.
    """
    root, threshold = logging.getLogger(), _threshold(level)
    form = form_for(format, stream, question)
    is_kept = isinstance(form, TextFormatter) and threshold <= logging.INFO and can_move(stream, os.environ)
    access = _take_over(root, threshold, form, stream, BottomLine(stream) if is_kept else None)
    root.setLevel(max(threshold, logging.WARNING))
    for name in (PACKAGE, *SERVER):
        logger = logging.getLogger(name)
        logger.handlers.clear()
        logger.propagate = True
        logger.setLevel(threshold)
    logging.getLogger(SERVER_ACCESS).disabled = True
    return access


def configure_package(
    level: LogLevel, format: LogFormat, stream: TextIO, question: Question = lambda exchange: ""
) -> AccessLog:
    """Has what this package logs go to ``stream`` from ``level`` on, and leaves every other logger alone.

    Returns the log of requests, as ``configure`` does, but without a line at the bottom: others write there, too.
    """
    package, threshold = logging.getLogger(PACKAGE), _threshold(level)
    access = _take_over(package, threshold, form_for(format, stream, question), stream, None)
    package.setLevel(threshold)
    package.propagate = False
    return access


def _threshold(level: LogLevel) -> int:
    return logging.getLevelNamesMapping()[level.upper()]


def _take_over(
    logger: logging.Logger, threshold: int, form: LineFormatter, stream: TextIO, bottom: BottomLine | None
) -> AccessLog:
    """Gives ``logger`` a handler of ours for ``stream`` in the place of all it had. Returns the log of requests."""
    outlet = AsyncLogWriter(stream, lost=form.lost, bottom=bottom)
    for handler in list(logger.handlers):
        logger.removeHandler(handler)
        handler.close()
    logger.addHandler(LogHandler(form, outlet))
    show_totals = None if bottom is None else outlet.show_totals
    return AccessLog(form, outlet.write, failures_only=threshold > logging.INFO, show_totals=show_totals)


def form_for(format: LogFormat, stream: TextIO, question: Question = lambda exchange: "") -> LineFormatter:
    """``auto`` is for people on a terminal, else JSON. Colours only on a terminal, and not with ``NO_COLOR`` set."""
    terminal = stream.isatty()
    if format is LogFormat.JSON or (format is LogFormat.AUTO and not terminal):
        return JsonFormatter()
    colour = terminal and not os.environ.get("NO_COLOR")
    return TextFormatter(colour=colour, question=question, columns=partial(columns_of, stream))
