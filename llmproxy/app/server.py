"""The running server: a socket, uvicorn on it, the services around it."""

import asyncio
import gc
import logging
import math
import signal
import socket
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from functools import partial
from types import FrameType
from typing import Any

import uvicorn
import uvloop

from llmproxy.app.app import create_app
from llmproxy.app.banner import introduce, welcome
from llmproxy.app.deadline import Deadline, end_process_after
from llmproxy.app.lifespan import CannotStart
from llmproxy.app.state import AppState
from llmproxy.app.terminal import question_for, totals_shown
from llmproxy.config.settings import LogLevel, Settings
from llmproxy.middleware.fast_path import FastPath, protocol_class
from llmproxy.middleware.protocol import ConnectionLimits, bound, raise_descriptor_limit, sweep
from llmproxy.observe.logs import configure

log = logging.getLogger(__name__)

SignalHandler = Callable[[int, FrameType | None], None]
_STOPS = (signal.SIGINT, signal.SIGTERM)

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
    access = configure(settings.log_level, settings.log_format, sys.stderr, question_for(settings))
    if settings.log_level is not LogLevel.DEBUG:
        # what it says of its coming and going is said here in fewer words
        logging.getLogger("uvicorn.error").setLevel(logging.WARNING)
    logging.getLogger("uvicorn.error").addFilter(_in_our_terms)
    deadline = Deadline(settings.shutdown_seconds)
    app = create_app(settings)
    with stop_signals() as listen_to_signals:
        async with app.open(settings, access, deadline) as state:
            hot = FastPath(state.services.hot, state.ids, state.sinks.batcher.add, cors=bool(settings.cors_origins))
            _settle_memory()
            introduce(state)
            server = _Server(_config(settings, app, hot, deadline), partial(welcome, state), state, deadline)
            listen_to_signals(server.handle_exit)
            async with totals_shown(access, state):
                await server.serve([listener])


def _in_our_terms(record: logging.LogRecord) -> bool:
    """A filter of uvicorn's log: it puts what is said of requests that do not end in time as everything else is put."""
    if str(record.msg).startswith("Cancel %s running task(s)"):
        record.msg = "the time for stopping is over: requests that are still in work (%s) are cut off"
        record.levelno, record.levelname = logging.WARNING, "WARNING"
    return True


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
    """uvicorn's, but for its signals: it would raise them again before the services could be closed. ``on_listening``
    gets host and port of each socket."""

    def __init__(
        self,
        config: uvicorn.Config,
        on_listening: Callable[[str, int], None],
        state: AppState,
        deadline: Deadline,
    ) -> None:
        super().__init__(config)
        self._deadline = deadline
        self._on_listening = on_listening
        self._state = state
        self._cutting: asyncio.Future[None] | None = None

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
        self._state.stop()
        await super().shutdown(sockets)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """The first signal lets the requests in work end; the second one, of either kind, cuts them off."""
        if not self.should_exit:
            log.info("stopping%s", self._what_is_waited_for())
            self.should_exit = True
        elif not self.force_exit:
            log.info("stopping at once; what waits to be written is written")
            self.force_exit = True
            self._deadline.hurry()
            end_process_after(self._deadline)
            for task in self.server_state.tasks:
                task.cancel()
            # those that go on for nobody, and are waited for when the services are closed
            self._cutting = asyncio.ensure_future(self._state.services.flights.close(0.0))

    def _what_is_waited_for(self) -> str:
        count = len(self._state.in_flight)
        if not count:
            return ""
        requests = "one request that is" if count == 1 else f"{count} requests that are"
        return f": waits up to {self._deadline.for_requests:g} s for {requests} in work; Ctrl-C again stops at once"

    def capture_signals(self) -> nullcontext[None]:  # type: ignore[override]  # a context manager all the same
        return nullcontext()


@contextmanager
def stop_signals() -> Iterator[Callable[[SignalHandler], None]]:
    """Yields what has a function called at each signal to stop. They are caught until everything is closed: whoever
    presses Ctrl-C once more must not get a traceback, nor lose what is being written."""
    loop = asyncio.get_running_loop()

    def listen(handler: SignalHandler) -> None:
        for stop in _STOPS:
            loop.add_signal_handler(stop, handler, stop, None)

    try:
        yield listen
    finally:
        for stop in _STOPS:
            loop.remove_signal_handler(stop)
