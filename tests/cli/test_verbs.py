"""The table of verbs: help, exit codes, what is loaded, and where the flags of ``serve`` arrive."""

import os
import subprocess
import sys

import pytest

from llmproxy.app import server
from llmproxy.app.lifespan import CannotStart
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


@pytest.mark.parametrize(
    "arguments",
    [["--help"], ["cache", "flush", "-h"], ["db", "upgrade", "-h"], ["batch", "run", "-h"], ["jobs", "list", "-h"]],
)
def test_help_fits_a_terminal(llmproxy: Program, arguments: list[str]) -> None:
    outcome = llmproxy(*arguments)
    assert outcome.code == 0
    assert all(len(line) <= 80 for line in outcome.out.splitlines())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["serv"], "no such command 'serv'. Did you mean 'serve'? (llmproxy --help)"),
        (["serve", "--nonsense"], "no such option: --nonsense (llmproxy serve --help)"),
        (["db", "sideways"], "no such command 'sideways' (llmproxy db --help)"),
        (["cache", "show"], "missing argument 'KEY' (llmproxy cache show --help)"),
        (["serve", "--port", "many"], "port = 'many' (flag): allowed is an integer from 0 to 65535"),
        (["demo", "--port", "70000"], "port = '70000' (flag): allowed is an integer from 0 to 65535"),
        (["serve", "--log-level", "loud"], "log_level = 'loud' (flag): allowed is one of debug, info, warning, error"),
    ],
)
def test_wrong_usage_is_one_line_on_stderr_and_2(llmproxy: Program, arguments: list[str], message: str) -> None:
    outcome = llmproxy(*arguments)
    assert (outcome.code, outcome.out, outcome.err) == (2, "", f"llmproxy: {message}\n")


@pytest.mark.parametrize("arguments", [[], ["cache"]])
def test_no_arguments_bring_the_help(llmproxy: Program, arguments: list[str]) -> None:
    outcome = llmproxy(*arguments)
    assert outcome.code == 2
    assert outcome.err.startswith("Usage: llmproxy")


def test_ctrl_c_is_130(llmproxy: Program, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(_: Settings) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(server, "run", interrupt)
    outcome = llmproxy("serve")
    assert (outcome.code, outcome.err) == (130, "")


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
    ("typed", "offered"),
    [
        ("llmproxy st", {"status"}),
        ("llmproxy cache fl", {"flush"}),
        ("llmproxy serve --lo", {"--log-level", "--log-format"}),
    ],
)
def test_a_shell_completes_verbs_and_options(typed: str, offered: set[str]) -> None:
    variables = {"_LLMPROXY_COMPLETE": "complete_bash", "COMP_WORDS": typed, "COMP_CWORD": str(typed.count(" "))}
    done = subprocess.run(
        [sys.executable, "-m", "llmproxy"],
        check=True,
        cwd=ROOT,
        env={**os.environ, **variables},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert set(done.stdout.split()) == offered


@pytest.mark.parametrize(
    ("module", "unwanted"),
    [
        ("llmproxy.cli", {"starlette", "uvicorn", "sqlalchemy", "httpx", "rich", "openai", "alembic"}),
        (
            "llmproxy.cli.serve",
            {"alembic", "openai", "xllamacpp", "llmproxy.cli.cache", "llmproxy.cli.batch", "llmproxy.cli.demo"},
        ),
    ],
)
def test_nothing_heavy_is_imported_that_is_not_needed(module: str, unwanted: set[str]) -> None:
    code = f"import sys, {module}; print(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code], check=True, cwd=ROOT, capture_output=True, text=True, timeout=60
    )
    assert unwanted.isdisjoint(done.stdout.split())
