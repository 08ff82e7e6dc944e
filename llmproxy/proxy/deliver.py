"""An answer on its way to the client, as ASGI messages."""

import asyncio
from collections.abc import Callable
from dataclasses import replace
from time import perf_counter

from starlette.types import Send

from llmproxy.proxy.broadcast import BroadcastReader, Lagged
from llmproxy.proxy.listen import TOO_LARGE, Client, ClientDisconnected, StreamAborted, facts_of, other_form, refusal
from llmproxy.proxy.offload import offload
from llmproxy.proxy.pipeline import note
from llmproxy.proxy.response import Answer, Fetched, Live, Paced, Whole
from llmproxy.wire.errors import ProxyError, Unavailable, UpstreamBroke, UpstreamFault
from llmproxy.wire.exchange import Exchange
from llmproxy.wire.headers import HeaderList
from llmproxy.wire.vocabulary import Reason

_PING = b": ping\n\n"
_NO_STREAM = "The upstream answered with a document that cannot be given as a stream."
#: Handed to the server at a time; it waits for the client before it takes more. So much of an answer is held for a
#: client that does not read.
_PIECE_BYTES = 256 * 1024


async def deliver(
    answer: Answer,
    exchange: Exchange,
    client: Client,
    send: Send,
    ping: float,
    on_complete: Callable[[], None] | None = None,
) -> None:
    """Sends it all. ``ping`` in seconds, 0 for none; ``on_complete`` is called before the last bytes are sent.

    Raises ``ClientDisconnected``, ``StreamAborted``.
    """
    on_complete = on_complete or _nothing
    if isinstance(answer, Whole):
        exchange.first_byte = perf_counter()
        exchange.status = answer.status
        await _start(send, answer.status, answer.headers)
        on_complete()
        await _send(send, *(answer.parts or (answer.body,)), last=True)
    elif isinstance(answer, Paced):
        await _paced(answer, exchange, client, send, on_complete)
    else:
        await _live(answer, exchange, client, send, ping, on_complete)


def _nothing() -> None:
    pass


async def _start(send: Send, status: int, headers: HeaderList) -> None:
    await send({"type": "http.response.start", "status": status, "headers": headers})


async def _send(send: Send, *parts: bytes | memoryview, last: bool) -> None:
    """Sends bytes in pieces that are not copied. ``last``: nothing comes after them."""
    if len(parts) == 1 and len(parts[0]) <= _PIECE_BYTES:
        await send({"type": "http.response.body", "body": parts[0], "more_body": not last})
        return
    views = [memoryview(part) for part in parts if part]
    while views:
        view = views.pop(0)
        if len(view) > _PIECE_BYTES:
            views.insert(0, view[_PIECE_BYTES:])
        more = bool(views) or not last
        await send({"type": "http.response.body", "body": view[:_PIECE_BYTES], "more_body": more})


async def _paced(
    answer: Paced, exchange: Exchange, client: Client, send: Send, on_complete: Callable[[], None]
) -> None:
    left = asyncio.Event()
    client.watch(left.set)
    exchange.status = 200
    await _start(send, 200, answer.headers)
    began = asyncio.get_running_loop().time()
    for when, piece in answer.pieces:
        wait = began + when / 1000 - asyncio.get_running_loop().time()
        if wait > 0:
            try:
                async with asyncio.timeout(wait):
                    await left.wait()
            except TimeoutError:
                pass
        if client.disconnected:
            raise ClientDisconnected
        exchange.first_byte = exchange.first_byte or perf_counter()
        await send({"type": "http.response.body", "body": piece, "more_body": True})
    on_complete()
    await send({"type": "http.response.body", "body": b""})


async def _live(
    answer: Live, exchange: Exchange, client: Client, send: Send, ping: float, on_complete: Callable[[], None]
) -> None:
    try:
        exchange.status = answer.status
        await _start(send, answer.status, answer.headers)
        ping = ping if answer.stream and _is_sse(answer) else 0
        while (last := await _pump(answer, exchange, client, send, ping)) is None:
            answer = _in_own_form(answer, client)
        on_complete()
        await _send(send, last, last=True)
    except asyncio.CancelledError:
        # the server stops: a stream must not look as if it had come to its end
        stopping = Unavailable("The proxy is shutting down.", code="shutting_down")
        await send({"type": "http.response.body", "body": _failure(answer, exchange, stopping)})
        raise
    finally:
        answer.reader.close()
        answer.flight.leave()


def _in_own_form(answer: Live, client: Client) -> Live:
    """The same answer by a call of its own. Nothing but pings was sent."""
    assert answer.own is not None
    flight = answer.own()
    answer.flight.leave()
    answer.reader.close()
    reader = BroadcastReader(flight.work)
    client.watch(reader.wake_up)
    return replace(answer, reader=reader, flight=flight, own=None)


async def _pump(answer: Live, exchange: Exchange, client: Client, send: Send, ping: float) -> bytes | None:
    """Frames as they come. Returns the last bytes: the last frames, or the one that tells of a failure; None where the
    flight has a plain answer of which no frames can be made."""
    reader, buffer, stream_view = answer.reader, answer.flight.work, answer.view.stream_view()
    # until it is known in which form the answer comes
    is_undecided = answer.own is not None
    while True:
        if client.disconnected:
            raise ClientDisconnected
        try:
            frames = reader.take(_PIECE_BYTES)
        except Lagged:
            return _failure(answer, exchange, UpstreamBroke("This client read too slowly for an answer of this size."))
        head, outcome = buffer.head, None if reader.behind else buffer.outcome
        if answer.stream and head is not None and not head.stream:
            # pings went out first, and then the upstream answered in one piece
            frames = []
        elif answer.stream:
            frames = stream_view.feed(frames)
            if outcome is not None:
                frames += stream_view.close()
        if is_undecided and head is not None:
            if other_form(buffer, answer.dialect, stream=answer.stream):
                return None
            is_undecided = answer.stream not in (head.stream, head.request)
        if frames and exchange.first_byte is None:
            exchange.first_byte = perf_counter()
        if isinstance(outcome, Fetched):
            last = await offload(len(outcome.document), _fetched_result, answer, exchange, outcome)
            return b"".join(frames) + last
        if frames:
            await _send(send, b"".join(frames), last=False)
        elif outcome is not None:
            exchange.stored = outcome.reason
            return _failed(answer, exchange, outcome.error)
        elif not reader.behind and not await reader.wait(ping or None):
            await send({"type": "http.response.body", "body": _PING, "more_body": True})


def _fetched_result(answer: Live, exchange: Exchange, fetched: Fetched) -> bytes:
    note(exchange, facts_of(fetched))
    head = answer.flight.work.head
    if answer.stream and head is not None and not head.stream:
        if fetched.reason is Reason.TOO_LARGE and not fetched.document:
            return _failure(answer, exchange, UpstreamBroke(TOO_LARGE))
        if not fetched.serves(answer.dialect, framed=False, stream=True):
            # pings went out first: the form in which it came can no longer be given
            error = refusal(answer.dialect, fetched) or UpstreamBroke(_NO_STREAM)
            return _failed(answer, exchange, error)
        return answer.view.rendered(fetched.document)
    return b""


def _failed(answer: Live, exchange: Exchange, error: ProxyError) -> bytes:
    """What the upstream itself said in the middle of its stream is passed on as it said it."""
    if answer.stream and isinstance(error, UpstreamFault) and error.frame:
        exchange.error = error.message
        return b"".join(answer.view.frames([error.frame]))
    return _failure(answer, exchange, error)


def _failure(answer: Live, exchange: Exchange, error: ProxyError) -> bytes:
    exchange.error = error.message
    exchange.stored = exchange.stored or Reason.UPSTREAM_FAILED
    if answer.stream:
        return answer.dialect.failure(error, exchange.request_id)
    # half a JSON document went out already: only a broken connection tells that it is not whole
    raise StreamAborted(error.message)


def _is_sse(answer: Live) -> bool:
    return answer.dialect.stream_type.startswith(b"text/event-stream")
