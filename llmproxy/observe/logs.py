"""Sets up logging: one outlet and one form for requests, for our own messages, and for what libraries log."""

import logging
import os
from typing import TextIO

from llmproxy.config.settings import LogFormat, LogLevel
from llmproxy.observe.access_log import AccessLog
from llmproxy.observe.formatters import JsonFormatter, LineFormatter, TextFormatter
from llmproxy.observe.log_writer import AsyncLogWriter

#: the server's loggers: its messages are ours, its access log is replaced
SERVER = ("uvicorn", "uvicorn.error", "uvicorn.asgi")
SERVER_ACCESS = "uvicorn.access"


class OutletHandler(logging.Handler):
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


def configure(level: LogLevel, format: LogFormat, stream: TextIO) -> AccessLog:
    """Has everything logged to ``stream`` from ``level`` on (libraries: warnings at least), replacing other set-ups.

    Returns the log of requests. Those that did not fail are logged at ``info``.
    """
    form = form_for(format, stream)
    outlet = AsyncLogWriter(stream, lost=form.lost)
    threshold = logging.getLevelNamesMapping()[level.upper()]
    root = logging.getLogger()
    for handler in list(root.handlers):
        root.removeHandler(handler)
        handler.close()
    root.addHandler(OutletHandler(form, outlet))
    root.setLevel(max(threshold, logging.WARNING))
    for name in ("llmproxy", *SERVER):
        logger = logging.getLogger(name)
        logger.handlers.clear()
        logger.propagate = True
        logger.setLevel(threshold)
    logging.getLogger(SERVER_ACCESS).disabled = True
    return AccessLog(form, outlet, failures_only=threshold > logging.INFO)


def form_for(format: LogFormat, stream: TextIO) -> LineFormatter:
    """``auto`` is for people on a terminal, else JSON. Colours only on a terminal, and not with ``NO_COLOR`` set."""
    terminal = stream.isatty()
    if format is LogFormat.JSON or (format is LogFormat.AUTO and not terminal):
        return JsonFormatter()
    return TextFormatter(colour=terminal and not os.environ.get("NO_COLOR"))
