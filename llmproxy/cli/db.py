"""``llmproxy db``: the database's schema."""

from collections.abc import Iterator
from contextlib import contextmanager

import typer

from llmproxy.cli.failure import Failure
from llmproxy.cli.options import DatabaseFlag, load_with
from llmproxy.config.describe import without_credentials
from llmproxy.database import migrate

app = typer.Typer(no_args_is_help=True, add_completion=False, rich_markup_mode=None)


@app.callback()
def db() -> None:
    """Look after the database's schema.

    `llmproxy serve` brings the schema up to date by itself. These are for doing it beforehand, and for looking.
    """


@app.command()
def upgrade(database: DatabaseFlag = None) -> None:
    """Bring the schema up to this version's."""
    url = load_with(database=database).settings.database
    with _told(url):
        migrate.upgrade(url)
        typer.echo(f"the schema is at revision {migrate.current(url)}")


@app.command()
def current(database: DatabaseFlag = None) -> None:
    """Print the schema's revision, and this version's."""
    url = load_with(database=database).settings.database
    with _told(url):
        typer.echo(f"{migrate.current(url) or 'no schema'} (this version's is {migrate.head()})")


@app.command()
def check(database: DatabaseFlag = None) -> None:
    """Exit with 1 and the reason if the schema is not this version's."""
    url = load_with(database=database).settings.database
    with _told(url):
        flaw = migrate.check(url)
    if flaw:
        raise Failure(flaw)
    typer.echo("the schema is this version's")


@contextmanager
def _told(url: str) -> Iterator[None]:
    """What goes wrong with the database, said in one line."""
    try:
        yield
    # each driver raises errors of its own, and a person wants the line, not the stack
    except Exception as error:
        reason = " ".join(str(error).split("\n[", 1)[0].split()) or type(error).__name__
        raise Failure(f"{without_credentials(url)}: {reason}") from error
