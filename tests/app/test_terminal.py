"""What a person sees in the terminal in which ``llmproxy serve`` runs: a real pseudo-terminal, read as one would."""

import os
import pty
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Self

import httpx
import pytest

from tests.scripted import CHAT, marker
from tests.scripted_upstream import ScriptedUpstream
from tests.server import environment
from tests.timeouts import WAIT_SECONDS

#: back to the beginning of the line, and away with what stands there
_CLEAR = "\r\x1b[K"
_COLOUR = re.compile(r"\x1b\[\d+m")


class Screen:
    """The lines on a terminal with all that has scrolled away. ``process`` runs in it."""

    def __init__(self, folder: Path, upstream: str, **variables: str) -> None:
        self._master, terminal = pty.openpty()
        self._written = b""
        arguments = ["serve", "--port", "0", "--upstream", upstream, "--database", str(folder / "x.db")]
        self.process = subprocess.Popen(
            [sys.executable, "-m", "llmproxy", *arguments],
            stdin=terminal,
            stdout=terminal,
            stderr=terminal,
            env={**environment(), "TERM": "xterm", **variables},
            start_new_session=True,
        )
        os.close(terminal)
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        while True:
            try:
                piece = os.read(self._master, 65536)
            except OSError:
                # Linux tells the end so
                return
            if not piece:
                return
            self._written += piece

    @property
    def raw(self) -> str:
        return self._written.decode(errors="replace").replace("\r\n", "\n")

    @property
    def lines(self) -> list[str]:
        lines = [""]
        for piece in re.split(f"({re.escape(_CLEAR)}|\n)", _COLOUR.sub("", self.raw)):
            if piece == "\n":
                lines.append("")
            elif piece == _CLEAR:
                lines[-1] = ""
            else:
                lines[-1] += piece
        return lines

    def until(self, text: str) -> str:
        """The line with ``text``, once there is one."""
        deadline = time.monotonic() + WAIT_SECONDS
        while True:
            for line in self.lines:
                if text in line:
                    return line
            assert time.monotonic() < deadline, self.raw
            time.sleep(0.02)

    def end(self) -> None:
        self.process.send_signal(signal.SIGINT)
        self.process.wait(WAIT_SECONDS)
        self._reader.join(WAIT_SECONDS)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.wait()
        self._reader.join(WAIT_SECONDS)
        os.close(self._master)


@contextmanager
def asked_twice(screen: Screen) -> Iterator[str]:
    """The question that was asked twice; the program serves on meanwhile."""
    found = re.search(r"http://[\d.]+:\d+", screen.until("listening on "))
    assert found
    url, prompt = found[0], marker()
    with httpx.Client(base_url=url, trust_env=False, timeout=WAIT_SECONDS) as http:
        for _ in range(2):
            assert http.post(CHAT.path, json=CHAT.request(prompt)).status_code == 200
        assert http.get("/ui/icon.svg").status_code == 200
        yield prompt


def test_requests_stand_above_a_line_of_totals(upstream: ScriptedUpstream, tmp_path: Path) -> None:
    with Screen(tmp_path, upstream.url) as screen, asked_twice(screen) as prompt:
        assert screen.until("50.0% hits").startswith("2 requests · 50.0% hits · saved ")
        lines = screen.lines
        # it is the last one, and there is only one
        assert [("% hits" in line) for line in lines] == [False] * (len(lines) - 1) + [True]
        (miss,) = (line for line in lines if line.startswith("MISS "))
        (hit,) = (line for line in lines if line.startswith("HIT "))
        head = next(line for line in lines if "endpoint" in line)
        for line in (miss, hit):
            assert line[head.index("question") :].rstrip("…")[:12] == prompt[:12]
            assert len(line) <= 100
        assert "\x1b[32mHIT" in screen.raw
        assert "/ui/icon.svg" not in screen.raw
        screen.end()
        assert "stopping" in screen.lines[-2]
        assert screen.lines[-1] == "", "the line of totals goes with the program"


@pytest.mark.parametrize("variables", [{"TERM": "dumb"}, {"LLMPROXY_LOG_FORMAT": "json"}])
def test_where_no_line_can_stay_none_is_written(
    upstream: ScriptedUpstream, tmp_path: Path, variables: dict[str, str]
) -> None:
    with Screen(tmp_path, upstream.url, **variables) as screen, asked_twice(screen):
        screen.until('"cache":"hit"' if "LLMPROXY_LOG_FORMAT" in variables else "HIT")
        screen.end()
        assert _CLEAR not in screen.raw
        assert "% hits" not in screen.raw


def test_questions_are_not_shown_if_bodies_are_not_kept(upstream: ScriptedUpstream, tmp_path: Path) -> None:
    with Screen(tmp_path, upstream.url, LLMPROXY_HISTORY_BODIES="false") as screen, asked_twice(screen) as prompt:
        screen.until("HIT")
        assert prompt[:6] not in screen.raw


def test_what_is_redacted_is_not_shown(upstream: ScriptedUpstream, tmp_path: Path) -> None:
    with Screen(tmp_path, upstream.url, LLMPROXY_HISTORY_REDACT=r"\S+") as screen, asked_twice(screen) as prompt:
        assert "[redacted]" in screen.until("HIT")
        assert prompt[:6] not in screen.raw
