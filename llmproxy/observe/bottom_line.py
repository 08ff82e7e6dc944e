"""A line that stays below all others on a terminal."""

import os
from collections.abc import Mapping
from typing import TextIO

from llmproxy.observe.text_log import fitted

#: to the beginning of the line, and away with what stands there
_CLEAR = "\r\x1b[K"


class BottomLine:
    """Writes texts above its own line. Belongs to the one thread that writes to the stream."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._text = ""

    def above(self, text: str) -> str:
        """What to write so that ``text``, whole lines, stands above the line."""
        return f"{_CLEAR}{text}{self._line()}" if self._text else text

    def replace(self, text: str) -> str:
        """What to write so that the line says ``text`` from now on; "" takes it away."""
        is_shown, self._text = bool(self._text), text
        return f"{_CLEAR if is_shown else ''}{self._line()}"

    def _line(self) -> str:
        # a line that reached the last column would be two once the window gets narrower
        return f"\x1b[2m{fitted(self._text, columns_of(self._stream) - 1).rstrip()}\x1b[0m" if self._text else ""


def columns_of(stream: TextIO, otherwise: int = 100) -> int:
    """How many characters fit into a line of the terminal behind a stream."""
    try:
        return os.get_terminal_size(stream.fileno()).columns or otherwise
    except (OSError, ValueError):
        # no terminal, or none that says so
        return otherwise


def can_move(stream: TextIO, environment: Mapping[str, str]) -> bool:
    """Whether a stream is a terminal that clears a line when it is asked to."""
    return stream.isatty() and environment.get("TERM", "") not in ("", "dumb", "unknown")
