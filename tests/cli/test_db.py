"""``llmproxy db`` on a real SQLite file."""

from pathlib import Path

from llmproxy.database.schema import HEAD
from tests.cli.program import Program


def test_a_new_database_is_brought_up_and_then_is_right(llmproxy: Program) -> None:
    file = Path("new/folder/x.db")
    outcome = llmproxy("db", "upgrade", "--database", str(file))
    assert outcome.code == 0, outcome.err
    assert HEAD in outcome.out
    assert file.exists()
    assert llmproxy("db", "current", "--database", str(file)).out == f"{HEAD} (this version's is {HEAD})\n"
    assert llmproxy("db", "check", "--database", str(file)).code == 0


def test_an_empty_database_is_not_right(llmproxy: Program) -> None:
    Path("empty.db").touch()
    outcome = llmproxy("db", "check", "--database", "empty.db")
    assert outcome.code == 1
    assert outcome.err.count("\n") == 1
    assert "no schema" in llmproxy("db", "current", "--database", "empty.db").out


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
