"""The running server: a socket, uvicorn on it, the services around it."""

import asyncio
import gc
import logging
import math
import signal
import socket
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import uvicorn
import uvloop

from llmproxy import __version__
from llmproxy.app.app import create_app
from llmproxy.app.deadline import Deadline, end_process_after
from llmproxy.app.lifespan import HOW_TO_START_ONE, CannotStart
from llmproxy.app.state import AppState
from llmproxy.config.load import without_credentials
from llmproxy.config.settings import LogLevel, Settings
from llmproxy.middleware.fast_path import FastPath, protocol_class
from llmproxy.middleware.protocol import ConnectionLimits, bound, raise_descriptor_limit, sweep
from llmproxy.observe.access_log import LineFormatter, TextFormatter
from llmproxy.observe.logs import configure, form_for

_BACKLOG = 2048
#: uvicorn ticks ten times a second; connections are checked each so many ticks
_TICKS = 5
#: for the garbage collector: young objects before it looks at them, and how often the older ones get their turn
_COLLECT = (10_000, 50, 100)


def run(settings: Settings) -> None:
    """Serves until SIGINT or SIGTERM. Raises ``CannotStart``."""
    uvloop.run(_serve(settings))


async def _serve(settings: Settings) -> None:
    raise_descriptor_limit()
    listener = bind(settings.host, settings.port)
    log = configure(settings.log_level, settings.log_format, sys.stderr)
    if settings.log_level is not LogLevel.DEBUG:
        # what it says of its coming and going is said here in fewer words
        logging.getLogger("uvicorn.error").setLevel(logging.WARNING)
    deadline = Deadline(settings.shutdown_seconds)
    app = create_app(settings)
    async with app.open(settings, log, deadline) as state:
        hot = FastPath(state.services.hot, state.ids, state.sinks.batcher.add, cors=bool(settings.cors_origins))
        _settle_memory()
        announce_line = partial(announce, form=form_for(settings.log_format, sys.stderr))
        upstreams = state.services.upstreams.describe() or "none found yet; it is looked for"
        announce_line(f"llmproxy {__version__}: upstream {upstreams}")
        announce_line(f"data in {place_of_data(settings)}")
        server = _Server(_config(settings, app, hot, deadline), partial(_welcome, state), state.stop, deadline)
        await server.serve([listener])


def _settle_memory() -> None:
    """Freezes what was allocated at start: to walk through it again would stop requests for a tenth of a second."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(*_COLLECT)


def bind(host: str, port: int) -> socket.socket:
    """A socket that can listen there. Raises ``CannotStart``."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
    except OSError as error:
        listener.close()
        raise CannotStart(
            f"port {port} on {host} cannot be used ({error.strerror}): "
            "stop what listens there, or choose another with --port"
        ) from error
    listener.setblocking(False)
    return listener


def _config(settings: Settings, app: Any, hot: FastPath, deadline: Deadline) -> uvicorn.Config:
    limits = ConnectionLimits.of(settings)
    return uvicorn.Config(
        app,
        http=protocol_class(hot, limits) if settings.fast_path else bound(limits),
        ws="none",
        lifespan="off",
        interface="asgi3",
        access_log=False,
        log_config=None,
        server_header=False,
        proxy_headers=False,
        backlog=_BACKLOG,
        timeout_keep_alive=math.ceil(settings.keep_alive_timeout),
        timeout_graceful_shutdown=max(1, int(deadline.for_requests)),
    )


class _Server(uvicorn.Server):
    """uvicorn's, but for its signals: it would raise them again before the rooms could be closed."""

    def __init__(
        self,
        config: uvicorn.Config,
        on_listening: Callable[[str, int], None],
        on_stop: Callable[[], None],
        deadline: Deadline,
    ) -> None:
        super().__init__(config)
        self._deadline = deadline
        self._on_listening = on_listening
        self._on_stop = on_stop

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        for listener in sockets or ():
            self._on_listening(*listener.getsockname()[:2])

    async def on_tick(self, counter: int) -> bool:
        if counter % _TICKS == 0:
            sweep(self.server_state.connections, asyncio.get_running_loop().time())  # type: ignore[arg-type]
        return await super().on_tick(counter)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self._deadline.begin()
        end_process_after(self._deadline)
        self._on_stop()
        await super().shutdown(sockets)

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        loop = asyncio.get_running_loop()
        stops = (signal.SIGINT, signal.SIGTERM)
        for stop in stops:
            loop.add_signal_handler(stop, self.handle_exit, stop, None)
        try:
            yield
        finally:
            for stop in stops:
                loop.remove_signal_handler(stop)


def place_of_data(settings: Settings) -> str:
    """Where the database is, for people."""
    return str(settings.sqlite_file or without_credentials(settings.database))


def _welcome(state: AppState, host: str, port: int) -> None:
    """Says where the program listens, and to people also what to do with that."""
    settings = state.settings
    form = form_for(settings.log_format, sys.stderr)
    announce(f"listening on http://{f'[{host}]' if ':' in host else host}:{port}", form)
    if isinstance(form, TextFormatter):
        url = settings.local_url(port)
        announce(f"the page is {url}/ui\n\n{exports(url, has_keys=bool(settings.api_keys))}\n", form)
        if not state.services.upstreams.targets:
            announce(f"No model server was found on this machine. {HOW_TO_START_ONE}\n", form)


def exports(url: str, *, has_keys: bool = False) -> str:
    """What to paste into a shell so that the programs started there use the proxy at ``url``.

    SDKs of OpenAI refuse to start without a key; ``has_keys`` says that the proxy has keys of its own, of which the
    user has one.
    """
    variables = {
        "OPENAI_BASE_URL": f"{url}/v1",
        **({} if has_keys else {"OPENAI_API_KEY": "none"}),
        "ANTHROPIC_BASE_URL": url,
        "OLLAMA_HOST": url,
    }
    return "\n".join(f"export {name}={value}" for name, value in variables.items())


def announce(line: str, form: LineFormatter) -> None:
    """Prints a line for the person who started the program, at every log level."""
    record = logging.makeLogRecord({"name": "llmproxy", "levelname": "INFO", "levelno": logging.INFO, "msg": line})
    print(line if isinstance(form, TextFormatter) else form.record(record).rstrip(), file=sys.stderr, flush=True)  # noqa: T201
