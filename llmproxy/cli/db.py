"""``llmproxy db``: the database's schema, and copies of it."""

import io
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

from llmproxy.cli.db_copy import copy
from llmproxy.cli.format import table
from llmproxy.cli.options import CommandFailed, DatabaseFlag, load_with
from llmproxy.config.load import without_credentials
from llmproxy.config.settings import Settings
from llmproxy.database import migrate
from llmproxy.database.backup import back_up_sqlite, pg_dump, pg_restore, restore_sqlite
from llmproxy.database.schema import check_age

app = typer.Typer(no_args_is_help=True, add_completion=False, rich_markup_mode=None)


@app.callback()
def db() -> None:
    """Back up, restore and copy the database, and manage its schema.

    `llmproxy serve` brings the schema up to date by itself; `upgrade`, `current` and `check` are for doing it
    beforehand, and for looking.
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


BackupArgument = Annotated[Path, typer.Argument(metavar="FILE", help="The backup.")]


@app.command()
def backup(
    file: BackupArgument,
    force: Annotated[bool, typer.Option("--force", help="Replace the file if it exists.")] = False,
    database: DatabaseFlag = None,
) -> None:
    """Copy the database into a file, also while the proxy runs.

    The copy is of one moment, and whole: what is written meanwhile is not in it, and nobody waits. PostgreSQL's is made
    by pg_dump. Uploaded files are not in the database: copy their folder, too.
    """
    settings = load_with(database=database).settings
    if file.exists() and not force:
        raise CommandFailed(f"{file} exists: choose another name, or --force")
    source = settings.sqlite_file
    if source is not None and not source.exists():
        raise CommandFailed(f"there is no database at {source}")
    with _reporting(settings.database):
        if source is None:
            command = pg_dump(settings.database, file)
            typer.echo(f"{command}", err=True)
            command.run()
        else:
            with _progress("copying") as on_progress:
                back_up_sqlite(source, file, on_progress)
    typer.echo(f"{file}: {file.stat().st_size:,} bytes")


@app.command()
def restore(
    file: BackupArgument,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask before a database is replaced.")] = False,
    database: DatabaseFlag = None,
) -> None:
    """Put a backup in the place of the database.

    Stop the proxy and its workers first: a database in use is refused. The earlier SQLite file is kept beside the new
    one, with .before-restore behind its name. PostgreSQL's is restored by pg_restore.
    """
    settings = load_with(database=database).settings
    if not file.exists():
        raise CommandFailed(f"there is no file {file}")
    target = settings.sqlite_file
    place = target or without_credentials(settings.database)
    if not yes and (target is None or target.exists()):
        typer.confirm(f"Replace the database {place}?", err=True, abort=True)
    earlier = None
    with _reporting(settings.database):
        if target is None:
            command = pg_restore(file, settings.database)
            typer.echo(f"{command}", err=True)
            command.run()
        else:
            with _progress("copying") as on_progress:
                earlier = restore_sqlite(file, target, on_progress)
    typer.echo(f"{place} is what it was when {file} was made" + (f"; the earlier one is {earlier}" if earlier else ""))


@app.command("copy")
def copy_to(
    to: Annotated[str, typer.Option("--to", metavar="URL", help="A new PostgreSQL database: postgresql://...")],
    database: Annotated[
        str | None, typer.Option("--from", metavar="PATH", help="The SQLite file [the database of the settings].")
    ] = None,
) -> None:
    """Copy an SQLite database to PostgreSQL.

    All of it or, after a failure, nothing; the rows are counted on both sides. Stop the proxy and its workers first: a
    database in use is refused. Then start them with DATABASE_URL set.
    """
    settings = load_with(database=database).settings
    source, target = settings.sqlite_file, load_with(database=to).settings
    if source is None or not source.exists():
        raise CommandFailed(f"there is no SQLite database at {source or without_credentials(settings.database)}")
    if target.sqlite_file is not None:
        raise CommandFailed("--to takes the URL of a PostgreSQL database: postgresql://user:password@host/name")
    with _reporting(target.database), _progress("copying") as on_progress:
        counts = copy(source, target.database, on_progress)
    for line in table(["table", "rows"], ([name, f"{count:,}"] for name, count in counts.items())):
        typer.echo(line)
    # a folder of the settings stays what it is; by default files are beside the database
    files = source.parent / "files"
    if not settings.files_path and files.exists():
        typer.echo(f"uploaded files are still in {files}: LLMPROXY_FILES_PATH={files} keeps them in use")


@contextmanager
def _progress(label: str) -> Iterator[Callable[[int, int], object]]:
    """Yields what shows how much of a whole is done, on a terminal."""
    console = Console(stderr=True)
    columns = (TextColumn(label), BarColumn(), TaskProgressColumn(), TimeRemainingColumn(compact=True))
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task(label, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


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
