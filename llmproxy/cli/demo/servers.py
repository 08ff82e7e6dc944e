"""The demo's processes: two llama.cpp servers and the proxy in front of them.

Run as a program, this module is ``llmproxy`` as a child that stops when its parent is gone, however the parent ended.
"""

import os
import select
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import httpx

from llmproxy.cli import main
from llmproxy.cli.options import CommandFailed
from llmproxy.config.load import FILE_VARIABLE, PREFIX, environment_names
from llmproxy.config.settings import Settings

CHAT_MODEL = "smollm2"
EMBEDDING_MODEL = "smollm2-embed"

_HOST = "127.0.0.1"
_START_SECONDS = 60.0
_STOP_SECONDS = 15.0


@dataclass(frozen=True)
class Stack:
    """What runs. ``chat`` is the chat server itself, ``url`` the proxy; both without a path."""

    url: str
    chat: str
    proxy: subprocess.Popen[str]
    database: Path
    log: Path


@contextmanager
def running(folder: Path, port: int) -> Iterator[Stack]:
    """The processes, answering; all stopped at the end. Raises ``CommandFailed``.

    Their database, a new one, and their log are in ``folder`` and have the port's name: two at once do not share them.
    """
    port = free_port(port)
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    database, log = folder / f"demo-{port}.db", folder / f"demo-{port}.log"
    remove_database(database)
    with ExitStack() as stack:
        output = stack.enter_context(log.open("w", encoding="utf-8"))
        llama = "llmproxy.cli.demo.llama"
        chat = stack.enter_context(_child(output, llama, "--alias", CHAT_MODEL))
        embedding = stack.enter_context(_child(output, llama, "--alias", EMBEDDING_MODEL, "--embedding"))
        upstreams = [_announced(chat, log), _announced(embedding, log)]
        serve = [
            "serve",
            "--host",
            _HOST,
            "--port",
            str(port),
            "--database",
            str(database),
            "--log-format",
            "text",
        ]
        for upstream in upstreams:
            serve += ["--upstream", upstream]
        proxy = stack.enter_context(_child(output, "llmproxy.cli.demo.servers", *serve))
        url = f"http://{_HOST}:{port}"
        _ready(proxy, url, log)
        yield Stack(url, upstreams[0], proxy, database, log)


def remove_database(file: Path) -> None:
    for suffix in ("", "-wal", "-shm"):
        Path(f"{file}{suffix}").unlink(missing_ok=True)


def free_port(port: int) -> int:
    """``port`` if nobody listens there, a free one for 0. Raises ``CommandFailed``."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((_HOST, port))
        except OSError as error:
            raise CommandFailed(
                f"port {port} on {_HOST} cannot be used ({error.strerror}): stop what listens there, "
                "or choose another with --port"
            ) from error
        return int(probe.getsockname()[1])


@contextmanager
def _child(output: IO[str], module: str, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    """A Python child, stopped at the end. It has a session of its own: Ctrl-C reaches it only through us."""
    child = subprocess.Popen(
        [sys.executable, "-m", module, *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE if module.endswith("llama") else output,
        stderr=output,
        text=True,
        env=_environment(),
        start_new_session=True,
    )
    with child:
        try:
            yield child
        finally:
            child.terminate()
            try:
                child.wait(_STOP_SECONDS)
            except subprocess.TimeoutExpired:
                child.kill()


def _environment() -> dict[str, str]:
    """Ours without any setting of the proxy: the demo is the same everywhere."""
    bare = {variable for name in Settings.model_fields for variable in environment_names(name)}
    ours = {name: value for name, value in os.environ.items() if name not in bare and not name.startswith(PREFIX)}
    return ours | {FILE_VARIABLE: os.devnull}


def _announced(child: subprocess.Popen[str], log: Path) -> str:
    """The URL that the child prints when it answers."""
    assert child.stdout is not None
    if child.stdout in select.select([child.stdout], [], [], _START_SECONDS)[0] and (url := child.stdout.readline()):
        return url.strip()
    raise CommandFailed(f"llama.cpp did not start: {_last_line(log)}")


def _ready(proxy: subprocess.Popen[str], url: str, log: Path) -> None:
    deadline = time.monotonic() + _START_SECONDS
    with httpx.Client(trust_env=False, timeout=2.0) as http:
        while proxy.poll() is None and time.monotonic() < deadline:
            try:
                if http.get(f"{url}/ready").is_success:
                    return
            except httpx.TransportError:
                pass  # not listening yet
            time.sleep(0.05)
    raise CommandFailed(f"the proxy did not start: {_last_line(log)}")


def _last_line(log: Path) -> str:
    lines = log.read_text(encoding="utf-8", errors="replace").split("\n")
    return next((line.strip() for line in reversed(lines) if line.strip()), f"nothing in {log}")


def _stop_with_parent() -> None:
    """Asks this process to stop, as SIGTERM does, once stdin ends."""
    # unbuffered: a reader inside Python's buffer would hold its lock at exit
    while os.read(sys.stdin.fileno(), 4096):
        pass
    os.kill(os.getpid(), signal.SIGTERM)


if __name__ == "__main__":
    threading.Thread(target=_stop_with_parent, name="stop with the parent", daemon=True).start()
    main()
