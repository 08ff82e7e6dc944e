"""``llmproxy config``: effective settings, sources, hidden secrets, in a form that can be used again."""

import json
import tomllib
from pathlib import Path

import pytest

from llmproxy.config.settings import Settings
from llmproxy.config.values import INSTRUCTIONS
from tests.cli.program import Program


def test_every_setting_is_printed_with_its_source(llmproxy: Program, monkeypatch: pytest.MonkeyPatch) -> None:
    Path("llmproxy.toml").write_text("history = false")
    monkeypatch.setenv("CACHE_MAX_SIZE", "7")
    outcome = llmproxy("config", "--port", "1")
    assert outcome.code == 0
    lines = {line.removeprefix("# ").split(" ")[0]: line for line in outcome.out.splitlines()}
    assert list(lines) == list(Settings.model_fields)
    assert lines["port"].split() == ["port", "=", "1", "#", "flag"]
    assert lines["history"].split() == ["history", "=", "false", "#", "llmproxy.toml"]
    assert lines["cache_max_size"].endswith("# environment CACHE_MAX_SIZE")
    assert lines["host"].endswith("# default")


def test_the_output_is_a_settings_file(llmproxy: Program) -> None:
    printed = llmproxy("config", "--upstream", "http://one", "--port", "1").out
    assert tomllib.loads(printed)["upstream"] == ["http://one"]
    Path("llmproxy.toml").write_text(printed)
    again = llmproxy("config").out
    assert tomllib.loads(again) == tomllib.loads(printed)


def test_tables_of_texts_come_back_as_they_were(llmproxy: Program, monkeypatch: pytest.MonkeyPatch) -> None:
    strange = {"a name": 'quotes " \\ and\nlines \x7f \x1b 😀'}
    monkeypatch.setenv("LLMPROXY_INSTRUCTIONS", json.dumps(strange))
    printed = tomllib.loads(llmproxy("config").out)["instructions"]
    assert printed == {**INSTRUCTIONS, **strange}


def test_the_database_in_use_is_the_one_printed(llmproxy: Program, monkeypatch: pytest.MonkeyPatch) -> None:
    assert f"\ndatabase_path = '{Path.cwd()}/" in llmproxy("config").out
    Path("data").mkdir()
    Path("data/llmproxy.db").touch()
    assert "\ndatabase_path = 'data/llmproxy.db' " in llmproxy("config").out
    monkeypatch.setenv("DATABASE_URL", "postgres://host/db")
    printed = llmproxy("config").out
    assert "\n# database_path is not used " in printed
    assert "\ndatabase_url = " in printed


def test_secrets_are_hidden(llmproxy: Program, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LLMPROXY_ADMIN_TOKEN", "s3cret")
    monkeypatch.setenv("LLMPROXY_API_KEYS", "alice:s3cret")
    monkeypatch.setenv("DATABASE_URL", "postgres://me:s3cret@host/db")
    outcome = llmproxy("config", "--upstream", "http://me:s3cret@host")
    assert outcome.code == 0
    assert "s3cret" not in outcome.out
    assert outcome.out.count("(hidden)") == 4
