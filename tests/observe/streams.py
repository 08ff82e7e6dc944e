"""Streams for the tests of logs."""

import io
import threading


class Terminal(io.StringIO):
    """Says that somebody is looking."""

    def isatty(self) -> bool:
        return True


class Paused(io.StringIO):
    """Takes nothing until it is resumed, like a terminal after Ctrl-S."""

    def __init__(self) -> None:
        super().__init__()
        self.reached = threading.Event()
        self.resumed = threading.Event()

    def write(self, text: str) -> int:
        self.reached.set()
        assert self.resumed.wait(60), "never resumed"
        return super().write(text)
