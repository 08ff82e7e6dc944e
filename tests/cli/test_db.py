"""``llmproxy db`` on a real SQLite file."""

import contextlib
import sqlite3
from pathlib import Path

import pytest

from llmproxy.database.schema import HEAD
from tests.cli.program import Program

_AN_INDEX = "SELECT name FROM sqlite_master WHERE type = 'index' AND sql IS NOT NULL"


def test_a_new_database_is_brought_up_and_then_is_right(llmproxy: Program) -> None:
    file = Path("new/folder/x.db")
    outcome = llmproxy("db", "upgrade", "--database", str(file))
    assert outcome.code == 0, outcome.err
    assert HEAD in outcome.out
    assert file.exists()
    assert llmproxy("db", "current", "--database", str(file)).out == f"{HEAD} (this version's is {HEAD})\n"
    right = llmproxy("db", "check", "--database", str(file))
    assert (right.code, right.out, right.err) == (0, "the schema is this version's\n", "")


def test_an_empty_database_is_not_right(llmproxy: Program) -> None:
    Path("empty.db").touch()
    outcome = llmproxy("db", "check", "--database", "empty.db")
    assert outcome.code == 1
    assert outcome.err == f"llmproxy: there is no schema; this version's is {HEAD}: llmproxy db upgrade\n"
    assert "no schema" in llmproxy("db", "current", "--database", "empty.db").out


@pytest.mark.parametrize("flags", [[], ["--database", "data/x.db"], ["--database", "sqlite:///data/x.db?timeout=1"]])
def test_looking_makes_no_file(llmproxy: Program, flags: list[str]) -> None:
    assert llmproxy("db", "current", *flags).out == f"no schema (this version's is {HEAD})\n"
    assert "there is no schema" in llmproxy("db", "check", *flags).err
    assert not Path("data").exists()


def test_another_schema_is_named(llmproxy: Program) -> None:
    llmproxy("db", "upgrade", "--database", "x.db")
    with contextlib.closing(sqlite3.connect("x.db")) as connection:
        connection.execute("DROP INDEX " + connection.execute(_AN_INDEX).fetchone()[0])
    outcome = llmproxy("db", "check", "--database", "x.db")
    assert (outcome.code, outcome.out) == (1, "")
    assert outcome.err.startswith(f"llmproxy: the schema is at revision {HEAD}, this version's is {HEAD}: ")


def test_a_database_that_cannot_be_used_is_one_line_without_the_password(llmproxy: Program) -> None:
    outcome = llmproxy("db", "upgrade", "--database", "postgres://me:s3cret@127.0.0.1:1/x")
    assert outcome.code == 1
    assert outcome.err.count("\n") == 1
    assert "s3cret" not in outcome.err


def test_a_file_that_is_no_database_is_one_line(llmproxy: Program) -> None:
    Path("x.db").write_text("not a database" * 1000)
    outcome = llmproxy("db", "upgrade", "--database", "x.db")
    assert outcome.code == 1
    assert outcome.err.count("\n") == 1
