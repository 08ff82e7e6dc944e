"""The table of verbs: help, exit codes, what is loaded, and where the flags of ``serve`` arrive."""

import subprocess
import sys

import pytest

from llmproxy.app import server
from llmproxy.app.opening import CannotStart
from llmproxy.cli import VERBS, load
from llmproxy.config.settings import LogFormat, LogLevel, Settings
from llmproxy.wire.errors import UpstreamRefused
from tests.cli.program import ROOT, Program


def test_help_lists_every_verb(llmproxy: Program) -> None:
    outcome = llmproxy("--help")
    assert outcome.code == 0
    for verb in VERBS:
        assert f"  {verb.name} " in outcome.out
        assert verb.summary in outcome.out


@pytest.mark.parametrize("verb", VERBS, ids=lambda verb: verb.name)
def test_a_verbs_own_help_opens_with_the_tables_summary(llmproxy: Program, verb: object) -> None:
    row = next(each for each in VERBS if each is verb)
    outcome = llmproxy(row.name, "--help")
    assert outcome.code == 0
    assert f"Usage: llmproxy {row.name}" in outcome.out
    assert load(row).help.splitlines()[0] == row.summary


@pytest.mark.parametrize("arguments", [["--help"], ["cache", "flush", "-h"], ["db", "upgrade", "-h"]])
def test_help_fits_a_terminal(llmproxy: Program, arguments: list[str]) -> None:
    outcome = llmproxy(*arguments)
    assert outcome.code == 0
    assert all(len(line) <= 80 for line in outcome.out.splitlines())


@pytest.mark.parametrize(
    "arguments", [["serv"], ["serve", "--port", "many"], ["serve", "--nonsense"], ["db", "sideways"]]
)
def test_wrong_usage_ends_with_2_on_stderr(llmproxy: Program, arguments: list[str]) -> None:
    outcome = llmproxy(*arguments)
    assert outcome.code == 2
    assert "Usage: llmproxy" in outcome.err
    assert "Traceback" not in outcome.err


def test_a_misspelt_verb_gets_a_hint(llmproxy: Program) -> None:
    assert "'serve'" in llmproxy("serv").err


def test_the_version_is_printed(llmproxy: Program) -> None:
    assert llmproxy("--version").out.startswith("llmproxy ")


def test_the_flags_of_serve_become_settings(llmproxy: Program, monkeypatch: pytest.MonkeyPatch) -> None:
    served: list[Settings] = []
    monkeypatch.setattr(server, "run", served.append)
    outcome = llmproxy(
        *("serve", "--upstream", "http://one/v1", "--upstream", "http://two", "--port", "0"),
        *("--database", "x.db", "--log-level", "debug", "--log-format", "json"),
    )
    assert outcome.code == 0
    (settings,) = served
    assert settings.upstream == ("http://one", "http://two")
    assert settings.port == 0
    assert settings.database == "sqlite+aiosqlite:///x.db"
    assert (settings.log_level, settings.log_format) == (LogLevel.DEBUG, LogFormat.JSON)


def test_a_database_url_is_told_from_a_path(llmproxy: Program, monkeypatch: pytest.MonkeyPatch) -> None:
    served: list[Settings] = []
    monkeypatch.setattr(server, "run", served.append)
    llmproxy("serve", "--database", "postgres://a/b")
    assert [settings.database for settings in served] == ["postgresql+asyncpg://a/b"]


@pytest.mark.parametrize(
    "error",
    [
        CannotStart("no model server was found"),
        UpstreamRefused("no answer"),
        OSError(98, "Address already in use"),
    ],
)
def test_an_expected_failure_is_one_line_and_1(
    llmproxy: Program, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def fail(_: Settings) -> None:
        raise error

    monkeypatch.setattr(server, "run", fail)
    outcome = llmproxy("serve")
    assert outcome.code == 1
    assert outcome.err == f"llmproxy: {error}\n"


def test_a_bad_setting_is_one_line_and_2(llmproxy: Program, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LLMPROXY_PORT", "x")
    outcome = llmproxy("serve")
    assert outcome.code == 2
    assert outcome.err.count("\n") == 1
    assert "LLMPROXY_PORT" in outcome.err


@pytest.mark.parametrize(
    ("module", "unwanted"),
    [
        ("llmproxy.cli", {"starlette", "uvicorn", "sqlalchemy", "httpx", "rich", "openai", "alembic"}),
        (
            "llmproxy.cli.serve",
            {"alembic", "openai", "xllamacpp", "llmproxy.cli.cache", "llmproxy.cli.demo"},
        ),
    ],
)
def test_nothing_heavy_is_imported_that_is_not_needed(module: str, unwanted: set[str]) -> None:
    code = f"import sys, {module}; print(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code], check=True, cwd=ROOT, capture_output=True, text=True, timeout=60
    )
    assert unwanted.isdisjoint(done.stdout.split())
