"""A batch from start to end: send, begin, watch, fetch. What was begun once is gone on with."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TypeVar

from rich.console import Console

from llmproxy.cli.batches.api import BatchApi, id_of
from llmproxy.cli.batches.progress import BatchProgress, progress
from llmproxy.cli.batches.source import Source, inspect
from llmproxy.cli.batches.state import State, StateFile
from llmproxy.cli.batches.status import BatchStatus, standing
from llmproxy.cli.client import Refused, Unreachable
from llmproxy.cli.failure import CommandFailed

#: between two looks at the batch, in seconds: soon at first, for short ones
_FIRST_PAUSE, _LONGEST_PAUSE, _GROWTH = 0.1, 1.0, 1.3
#: how long a proxy that is not there is waited for, and between two tries
_PATIENCE_SECONDS, _TRY_SECONDS = 120.0, 0.5

T = TypeVar("T")


class Left(Exception):
    """Interrupted; ``batch`` goes on, "" where none is known to have begun."""

    def __init__(self, batch: str) -> None:
        super().__init__(batch)
        self.batch = batch


@dataclass(frozen=True)
class Paths:
    """The requests, and where answers and failures go."""

    source: Path
    output: Path
    errors: Path


def run(paths: Paths, api: BatchApi, console: Console) -> BatchStatus:
    """Returns the batch when it is over and its files are on the disk.

    Raises ``Left``, ``CommandFailed``, ``OSError``.
    """
    source, file = inspect(paths.source), StateFile(paths.output)
    state = _known(file, source, api.url, console)
    try:
        if not state.batch:
            state = _begun(api, source, state, file, console)
        with progress(console) as shown:
            batch = _watched(api, state.batch, shown)
            _fetch(api, batch, paths, shown)
    except KeyboardInterrupt:
        state = file.read() or state
        raise Left(state.batch) from None
    except Refused as error:
        if not state.batch or error.status == 404:
            # there is nothing to go on with
            file.forget()
        raise
    file.forget()
    return batch


def _known(file: StateFile, source: Source, url: str, console: Console) -> State:
    """What an earlier run began, if these are its requests and its proxy; else a new beginning."""
    state = file.read()
    if state is None:
        return file.begin(url, source.sha256)
    if (state.url, state.sha256) != (url, source.sha256):
        _say(console, f"{state.batch or 'what was begun'} was for other requests or another proxy: this is a new batch")
        return file.begin(url, source.sha256)
    if state.batch:
        _say(console, f"{state.batch}: going on")
    return state


def _begun(api: BatchApi, source: Source, state: State, file: StateFile, console: Console) -> State:
    """The state with the batch's id."""
    _say(console, f"sending {source.path} ({source.size / 1e6:,.1f} MB)")
    file_id = api.upload(source, f"{state.key}-file")
    batch = id_of(api.create(file_id, source.endpoint, f"{state.key}-batch"))
    _say(console, f"{batch}: begun")
    return file.begun(state, batch)


def _watched(api: BatchApi, batch_id: str, shown: BatchProgress) -> BatchStatus:
    """The batch when it is over."""
    pause = _FIRST_PAUSE
    while True:
        batch = standing(_patiently(partial(api.get, batch_id), shown))
        shown.show(batch)
        if batch.over:
            return batch
        time.sleep(pause)
        pause = min(pause * _GROWTH, _LONGEST_PAUSE)


def _fetch(api: BatchApi, batch: BatchStatus, paths: Paths, shown: BatchProgress) -> None:
    """The answers and the failures of a batch of which anything was run."""
    if batch.refused:
        return
    if batch.output:
        _patiently(partial(api.download, batch.output, paths.output), shown)
    else:
        paths.output.write_bytes(b"")
    if batch.errors:
        _patiently(partial(api.download, batch.errors, paths.errors), shown)
    else:
        paths.errors.unlink(missing_ok=True)


def _patiently(ask: Callable[[], T], shown: BatchProgress) -> T:
    """Asks again for a while where the proxy is away, as one is that is being started again."""
    deadline = time.monotonic() + _PATIENCE_SECONDS
    while True:
        try:
            return ask()
        except (Unreachable, Refused) as error:
            if isinstance(error, Refused) and error.status < 500:
                raise
            if time.monotonic() > deadline:
                raise CommandFailed(f"{error} The batch is not lost: the same command goes on with it.") from error
            shown.wait(str(error))
        time.sleep(_TRY_SECONDS)


def _say(console: Console, line: str) -> None:
    console.print(line, markup=False, soft_wrap=True)
