"""``llmproxy db``: the database's schema."""

import io
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout

import typer

from llmproxy.cli.options import CommandFailed, DatabaseFlag, load_with
from llmproxy.config.load import without_credentials
from llmproxy.config.settings import Settings
from llmproxy.database import migrate
from llmproxy.database.schema import check_age

app = typer.Typer(no_args_is_help=True, add_completion=False, rich_markup_mode=None)


@app.callback()
def db() -> None:
    """Look after the database's schema.

    `llmproxy serve` brings the schema up to date by itself. These are for doing it beforehand, and for looking.
    """


@app.command()
def upgrade(database: DatabaseFlag = None) -> None:
    """Bring the schema up to this version's."""
    settings = load_with(database=database).settings
    url = settings.database
    revision = _revision(settings)
    with _reporting(url):
        check_age(revision)
        migrate.upgrade(url)
        typer.echo(f"the schema is at revision {migrate.current(url)}")


@app.command()
def current(database: DatabaseFlag = None) -> None:
    """Print the schema's revision, and this version's."""
    settings = load_with(database=database).settings
    typer.echo(f"{_revision(settings) or 'no schema'} (this version's is {migrate.head()})")


@app.command()
def check(database: DatabaseFlag = None) -> None:
    """Exit with 1 and the reason if the schema is not this version's."""
    settings = load_with(database=database).settings
    revision = _revision(settings)
    if revision is None:
        raise CommandFailed(f"there is no schema; this version's is {migrate.head()}: llmproxy db upgrade")
    # Alembic prints a verdict in words of its own
    with _reporting(settings.database), redirect_stdout(io.StringIO()):
        check_age(revision)
        flaw = migrate.check(settings.database)
    if flaw:
        raise CommandFailed(f"the schema is at revision {revision}, this version's is {migrate.head()}: {flaw}")
    typer.echo("the schema is this version's")


def _revision(settings: Settings) -> str | None:
    """The schema's revision, None without a schema. Does not create a database file."""
    if settings.sqlite_file is not None and not settings.sqlite_file.exists():
        return None
    with _reporting(settings.database):
        return migrate.current(settings.database)


@contextmanager
def _reporting(url: str) -> Iterator[None]:
    """Raises ``CommandFailed`` with one line for whatever goes wrong with the database."""
    try:
        yield
    # each driver raises errors of its own, and a person wants the line, not the stack
    except Exception as error:
        reason = " ".join(str(error).split("\n[", 1)[0].split()) or type(error).__name__
        raise CommandFailed(f"{without_credentials(url)}: {reason}") from error
