"""Answers repeated requests inside uvicorn's protocol, before a request is parsed or a task exists.

Everything here rests on internals of uvicorn's ``HttpToolsProtocol``; ``protocol_class`` gives the plain protocol
if one of them is missing. Whatever is not a known request on an idle connection goes the ordinary way, untouched.
"""

from collections.abc import Callable
from time import perf_counter, time
from typing import Any, ClassVar

from uvicorn.protocols.http.httptools_impl import STATUS_LINE

from llmproxy.cache.raw_requests import LONGEST, HotAnswer, RawRequestIndex
from llmproxy.middleware.protocol import ConnectionLimits, ConnectionStage, Protocol, bound
from llmproxy.wire.exchange import RepeatHit, RequestIds

#: where the ordinary path finds ``remember`` in an ASGI scope's extensions
EXTENSION = "llmproxy.hot"

_NEEDED = (
    "_unset_keepalive_if_required",
    "timeout_keep_alive_handler",
    "on_message_begin",
    "on_message_complete",
    "on_headers_complete",
    "data_received",
)
#: headers of a request that is answered by more than its bytes, whatever they say
_SPECIAL = frozenset({b"transfer-encoding", b"expect", b"origin", b"upgrade"})
#: headers that may say what every connection does anyway
_CONNECTION = frozenset({b"connection", b"proxy-connection"})


class FastPathProtocol(Protocol):
    """Answers what ``RawRequestIndex`` knows; leaves everything else to its base class.

    ``hot`` is given by the subclass that ``protocol_class`` makes.
    """

    hot: ClassVar["FastPath"]

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        #: the bytes of the request under way, while it may be worth remembering
        self._raw = b""
        #: the beginning of a request whose head is known, until the rest of it is there
        self._held = b""

    def data_received(self, data: bytes) -> None:
        hot = self.hot
        if self._held:
            data, self._held = self._held + data, b""
        # whether the parser stands between two requests
        if self.stage is ConnectionStage.NOTHING and self._refusal is None:
            started = perf_counter()
            idle = not self.answering
            if idle:
                now = time()
                answer = hot.table.find(data, now)
                if answer is not None and not self.flow.write_paused:
                    self._answer(hot, answer, started, now)
                    return
                if self._hold(hot, data):
                    return
            # bytes that arrive while another request is answered are never taken for that one's
            self._raw = data if idle else b""
        elif self._raw:
            self._raw = self._raw + data if len(self._raw) + len(data) <= LONGEST else b""
        super().data_received(data)

    def _hold(self, hot: "FastPath", data: bytes) -> bool:
        """Waits for the body if the head is known: clients send the two in two writes."""
        end = data.find(b"\r\n\r\n")
        if end >= 0 and hot.table.length(data[: end + 4]) > len(data):
            self._unset_keepalive_if_required()
            self._held, self.since = data, self.loop.time()
            return True
        return False

    def check(self, now: float) -> None:
        if self._held:
            # the second write is long in coming: waiting for it is the ordinary way's matter
            self._raw, self._held = self._held, b""
            super().data_received(self._raw)
        super().check(now)

    def _answer(self, hot: "FastPath", answer: HotAnswer, started: float, now: float) -> None:
        self._unset_keepalive_if_required()
        request_id = answer.request_id or hot.ids.next()
        lines = [STATUS_LINE[200]]
        for name, value in self.server_state.default_headers:
            lines += (name, b": ", value, b"\r\n")
        lines.append(answer.head_at(now))
        seconds = perf_counter() - started
        lines.append(b"server-timing: total;dur=%.3f\r\n%bx-request-id: " % (seconds * 1000, hot.vary))
        lines += (request_id.encode("latin-1"), b"\r\n\r\n", answer.body)
        self.transport.write(b"".join(lines))
        self.server_state.total_requests += 1
        self.since = self.loop.time()
        hot.add(RepeatHit(answer.template, request_id, now, seconds, self.client[0] if self.client else ""))

    def extensions(self) -> dict[str, Any]:
        return {**super().extensions(), EXTENSION: self._remember}

    def _remember(self, answer: HotAnswer) -> None:
        """Called by the ordinary path while it answers the request whose bytes these are."""
        raw, self._raw = self._raw, b""
        end = raw.find(b"\r\n\r\n")
        if end < 0 or self.pipeline or self.stage is not ConnectionStage.NOTHING:
            return
        if (length := _plain_length(raw[:end])) is not None and len(raw) == end + 4 + length:
            self.hot.table.remember(raw, answer)


class FastPath:
    """What a ``FastPathProtocol`` needs of the app. ``cors``: whether answers differ for pages of other origins."""

    def __init__(
        self, table: RawRequestIndex, ids: RequestIds, add: Callable[[RepeatHit], None], *, cors: bool
    ) -> None:
        self.table = table
        self.ids = ids
        self.add = add
        self.vary = b"vary: Origin\r\n" if cors else b""


def protocol_class(hot: FastPath, limits: ConnectionLimits) -> type[Protocol]:
    """``FastPathProtocol``, or the plain protocol if uvicorn's internals are not those that this rests on."""
    if not all(callable(getattr(Protocol, name, None)) for name in _NEEDED):
        return bound(limits)
    return type("BoundFastPathProtocol", (FastPathProtocol,), {"hot": hot, "limits": limits})


def _plain_length(head: bytes) -> int | None:
    """Bytes of the body behind a head that asks for nothing but an answer; None for any other head.

    ``head`` has been parsed as HTTP by then: this needs to know only what is plain, not what is wrong.
    """
    first, *lines = head.lower().split(b"\r\n")
    if not first.startswith(b"post ") or not first.endswith(b" http/1.1") or head.count(b"\n") != len(lines):
        return None
    lengths = []
    for line in lines:
        name, colon, value = line.partition(b":")
        # a line that goes on where another ended begins with a blank, and has no name
        if not colon or name != name.strip() or name in _SPECIAL:
            return None
        if name in _CONNECTION and value.strip() != b"keep-alive":
            return None
        if name == b"content-length":
            lengths.append(value.strip())
    return int(lengths[0]) if len(lengths) == 1 and lengths[0].isdigit() else None
