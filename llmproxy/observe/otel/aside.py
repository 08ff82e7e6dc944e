"""Blocking work in a thread that nobody has to wait for when the program ends."""

import asyncio
import threading
from collections.abc import Callable
from contextlib import suppress


async def aside(work: Callable[[], object], limit: float) -> None:
    """Returns when ``work`` has. Raises ``TimeoutError`` after ``limit`` seconds, and whatever ``work`` raises.

    The threads of asyncio's own executor would hold up the program's end for as long as a collector is silent.
    """
    loop = asyncio.get_running_loop()
    done: asyncio.Future[None] = loop.create_future()

    def tell(error: Exception | None) -> None:
        if done.done():
            return
        if error is None:
            done.set_result(None)
        else:
            done.set_exception(error)

    def run() -> None:
        failure: Exception | None = None
        try:
            work()
        except Exception as error:  # noqa: BLE001  told to the one who waits
            failure = error
        # the loop may be gone by now, and with it whoever waited
        with suppress(RuntimeError):
            loop.call_soon_threadsafe(tell, failure)

    threading.Thread(target=run, name="otel", daemon=True).start()
    async with asyncio.timeout(limit):
        await done
