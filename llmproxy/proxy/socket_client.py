"""The client at the other end of the socket, as one who waits for an answer. ASGI tells only those who ask."""

import asyncio
from collections.abc import Callable

from starlette.types import Receive


class SocketClient:
    """The client at the other end of an ASGI request whose body has been read."""

    def __init__(self, receive: Receive) -> None:
        self._receive = receive
        self._task: asyncio.Task[None] | None = None
        self.disconnected = False

    def watch(self, wake: Callable[[], None]) -> None:
        if self._task is None:
            self._task = asyncio.get_running_loop().create_task(self._wait())
        self._task.add_done_callback(lambda _: wake())

    async def _wait(self) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            pass
        self.disconnected = True

    def close(self) -> None:
        """Ends the watch. Every listener is closed by the one who made it."""
        if self._task is not None:
            self._task.cancel()
