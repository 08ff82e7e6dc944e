"""Fixtures of the command line's tests."""

import os
from pathlib import Path

import pytest

from llmproxy.config.load import PREFIX
from tests.cli.program import Program, user_folders
from tests.logging_state import restored

__all__ = ["restored"]


@pytest.fixture
def llmproxy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Program:
    monkeypatch.chdir(tmp_path)
    for variable in os.environ:
        if variable.startswith(PREFIX):
            monkeypatch.delenv(variable)
    for variable, value in user_folders(tmp_path).items():
        monkeypatch.setenv(variable, value)
    return Program(monkeypatch, capsys)
