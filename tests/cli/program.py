"""The program as a test runs it: in this process with ``run``, as a process of its own with ``start``."""

import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from llmproxy.cli import main

ROOT = Path(__file__).parents[2]


@dataclass(frozen=True)
class Outcome:
    code: int
    out: str
    err: str


class Program:
    """``llmproxy`` in this process, in an empty folder and with no setting in the environment."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
        self._monkeypatch = monkeypatch
        self._capsys = capsys

    def __call__(self, *arguments: str) -> Outcome:
        self._monkeypatch.setattr(sys, "argv", ["llmproxy", *arguments])
        self._capsys.readouterr()
        with pytest.raises(SystemExit) as end:
            main()
        code = end.value.code
        assert isinstance(code, int)
        captured = self._capsys.readouterr()
        return Outcome(code, captured.out, captured.err)


def user_folders(folder: Path) -> dict[str, str]:
    """The environment in which the user's data folder is below ``folder``, on every system."""
    return {"HOME": str(folder), "XDG_DATA_HOME": str(folder / "share")}


def start(module: str, arguments: Sequence[str], folder: Path) -> subprocess.Popen[str]:
    """``python -m module`` in ``folder``, leading a session of its own, with pipes for all three streams."""
    return subprocess.Popen(
        [sys.executable, "-m", module, *arguments],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1", **user_folders(folder)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
