"""``llmproxy batch``: a file of requests through the running proxy's Batches, from the upload to the answers on disk.

A batch that was begun once is gone on with: a small file beside the output says which one it is.
"""

import json
import os
import secrets
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Annotated, TypeVar

import typer
from rich.console import Console

from llmproxy.cli.batch_client import BatchApi, BatchStatus, Source, id_of, inspect, parse_status, summary
from llmproxy.cli.batch_progress import BatchProgress, progress
from llmproxy.cli.client import Refused, Unreachable, base
from llmproxy.cli.options import ApiKeyFlag, CommandFailed, UrlFlag


@dataclass(frozen=True)
class State:
    """``key`` makes the upload and the batch the same ones however often they are asked for (Idempotency-Key);
    ``batch`` is its id, "" before that is known."""

    url: str
    sha256: str
    key: str
    batch: str = ""


class StateFile:
    """The file of one output. Methods raise ``OSError`` if it cannot be written."""

    def __init__(self, output: Path) -> None:
        self.path = output.with_name(f"{output.name}.llmproxy-batch")

    def read(self) -> State | None:
        """None if nothing was begun. Raises ``CommandFailed`` for a file that is not ours."""
        try:
            return State(**json.loads(self.path.read_text(encoding="utf-8")))
        except FileNotFoundError:
            return None
        except (ValueError, TypeError) as error:
            raise CommandFailed(f"{self.path} is not understood; delete it to begin anew") from error

    def begin(self, url: str, sha256: str) -> State:
        """A new one, before anything is sent."""
        return self.write(State(url, sha256, secrets.token_hex(16)))

    def begun(self, state: State, batch: str) -> State:
        """The batch is there."""
        return self.write(replace(state, batch=batch))

    def write(self, state: State) -> State:
        part = self.path.with_name(f"{self.path.name}.{os.getpid()}.part")
        part.write_text(json.dumps(asdict(state)), encoding="utf-8")
        part.replace(self.path)
        return state

    def forget(self) -> None:
        self.path.unlink(missing_ok=True)


#: between two looks at the batch, in seconds: soon at first, for short ones
_FIRST_PAUSE, _LONGEST_PAUSE, _GROWTH = 0.1, 1.0, 1.3
#: how long a proxy that is not there is waited for, and between two tries
_AWAY_SECONDS, _TRY_SECONDS = 120.0, 0.5

T = TypeVar("T")


class Interrupted(Exception):
    """The command was interrupted; ``batch`` goes on, "" if none is known to have begun."""

    def __init__(self, batch: str) -> None:
        super().__init__(batch)
        self.batch = batch


@dataclass(frozen=True)
class Paths:
    """The files of requests, answers and failures."""

    source: Path
    output: Path
    errors: Path


def run_batch(paths: Paths, api: BatchApi, console: Console) -> BatchStatus:
    """Returns the batch when it is over and its files are on the disk.

    Raises ``Interrupted``, ``CommandFailed``, ``OSError``.
    """
    source, file = inspect(paths.source), StateFile(paths.output)
    state = _resume(file, source, api.url, console)
    try:
        if not state.batch:
            state = _begin(api, source, state, file, console)
        with progress(console) as display:
            batch = _watch(api, state.batch, display)
            _fetch(api, batch, paths, display)
    except KeyboardInterrupt:
        state = file.read() or state
        raise Interrupted(state.batch) from None
    except Refused as error:
        if not state.batch or error.status == 404:
            # there is nothing to go on with
            file.forget()
        raise
    file.forget()
    return batch


def _resume(file: StateFile, source: Source, url: str, console: Console) -> State:
    """What an earlier run began, if these are its requests and its proxy; else a new beginning."""
    state = file.read()
    if state is None:
        return file.begin(url, source.sha256)
    if (state.url, state.sha256) != (url, source.sha256):
        _print(
            console, f"{state.batch or 'what was begun'} was for other requests or another proxy: this is a new batch"
        )
        return file.begin(url, source.sha256)
    if state.batch:
        _print(console, f"{state.batch}: going on")
    return state


def _begin(api: BatchApi, source: Source, state: State, file: StateFile, console: Console) -> State:
    """The state with the batch's id."""
    _print(console, f"sending {source.path} ({source.size / 1e6:,.1f} MB)")
    file_id = api.upload(source, f"{state.key}-file")
    batch = id_of(api.create(file_id, source.endpoint, f"{state.key}-batch"))
    _print(console, f"{batch}: begun")
    return file.begun(state, batch)


def _watch(api: BatchApi, batch_id: str, display: BatchProgress) -> BatchStatus:
    """The batch when it is over."""
    pause = _FIRST_PAUSE
    while True:
        batch = parse_status(_retry_while_away(partial(api.get, batch_id), display))
        display.show(batch)
        if batch.over:
            return batch
        time.sleep(pause)
        pause = min(pause * _GROWTH, _LONGEST_PAUSE)


def _fetch(api: BatchApi, batch: BatchStatus, paths: Paths, display: BatchProgress) -> None:
    """The answers and the failures of a batch of which anything was run."""
    if batch.refused:
        return
    if batch.output:
        _retry_while_away(partial(api.download, batch.output, paths.output), display)
    else:
        paths.output.write_bytes(b"")
    if batch.errors:
        _retry_while_away(partial(api.download, batch.errors, paths.errors), display)
    else:
        paths.errors.unlink(missing_ok=True)


def _retry_while_away(ask: Callable[[], T], display: BatchProgress) -> T:
    """Repeats a call for a while if the proxy is away: it may be restarting."""
    deadline = time.monotonic() + _AWAY_SECONDS
    while True:
        try:
            return ask()
        except (Unreachable, Refused) as error:
            if isinstance(error, Refused) and error.status < 500:
                raise
            if time.monotonic() > deadline:
                raise CommandFailed(f"{error} The batch is not lost: the same command goes on with it.") from error
            display.wait(str(error))
        time.sleep(_TRY_SECONDS)


def _print(console: Console, line: str) -> None:
    console.print(line, markup=False, soft_wrap=True)


#: flaws of the input that are printed
_MOST_FLAWS = 100

app = typer.Typer(no_args_is_help=True, add_completion=False, rich_markup_mode=None)


@app.callback()
def batch() -> None:
    """Run a file of requests as a batch."""


@app.command()
def run(
    source: Annotated[
        Path,
        typer.Argument(
            metavar="INPUT",
            exists=True,
            dir_okay=False,
            help="A request in each line, as in OpenAI's Batches.",
        ),
    ],
    output: Annotated[
        Path, typer.Option("--output", "-o", metavar="FILE", dir_okay=False, help="Where the answers go.")
    ],
    errors: Annotated[
        Path | None,
        typer.Option(
            "--errors",
            metavar="FILE",
            dir_okay=False,
            help="Where failed lines go [OUTPUT with .errors before its suffix]; no such file is left if none failed.",
        ),
    ] = None,
    url: UrlFlag = None,
    api_key: ApiKeyFlag = None,
) -> None:
    """Send a file of requests, wait for the answers, and fetch them.

    Ctrl-C leaves the batch running, and the same command goes on with it: what is needed for that is kept beside the
    output until the answers are there. The exit code is 1 if any line failed.
    """
    paths = Paths(source, output, errors or output.with_name(f"{output.stem}.errors{output.suffix}"))
    if len({path.resolve() for path in (paths.source, paths.output, paths.errors)}) < 3:
        raise typer.BadParameter("input, output and errors must be three different files")
    where = base(url)
    with BatchApi(where, api_key) as api:
        try:
            done = run_batch(paths, api, Console(stderr=True, highlight=False))
        except Interrupted as interrupted:
            typer.echo(f"{interrupted.batch or 'what was begun'} goes on; the same command goes on with it", err=True)
            raise typer.Exit(130) from None
    _report(done, paths)


def _report(batch: BatchStatus, paths: Paths) -> None:
    """Prints what came of the batch. Raises ``CommandFailed`` if anything went wrong."""
    if batch.refused:
        for flaw in batch.flaws[:_MOST_FLAWS]:
            typer.echo(flaw, err=True)
        if len(batch.flaws) > _MOST_FLAWS:
            typer.echo(f"and {len(batch.flaws) - _MOST_FLAWS:,} more", err=True)
        raise CommandFailed(f"{batch.id} was refused and nothing was run; {paths.source} has to be corrected")
    for line in summary(batch):
        typer.echo(line)
    if batch.status != "completed":
        raise CommandFailed(f"{batch.id} is {batch.status}; what was answered is in {paths.output}")
    if batch.failed:
        raise CommandFailed(f"{batch.failed:,} of {batch.total:,} lines failed; the reasons are in {paths.errors}")
