"""The quickest way to answer: inside uvicorn's protocol, before a request is parsed or a task exists.

Everything here rests on internals of uvicorn's ``HttpToolsProtocol``; ``protocol_class`` gives the plain protocol
where one of them is missing. Whatever is not a known request on an idle connection goes the ordinary way, untouched.
"""

from collections.abc import Callable
from time import perf_counter, time
from typing import Any, ClassVar

from uvicorn.protocols.http.httptools_impl import STATUS_LINE, RequestResponseCycle

from llmproxy.cache.hot import LONGEST, HotAnswer, HotHit, HotTable
from llmproxy.ingress.protocol import Protocol
from llmproxy.wire.ids import RequestIds

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
#: headers of a request that is answered by more than its bytes
_SPECIAL = (b"\r\nconnection: close", b"\r\ntransfer-encoding:", b"\r\nexpect:", b"\r\norigin:", b"\r\nupgrade:")


class HotProtocol(Protocol):
    """Answers what ``HotTable`` knows; leaves everything else to its base class.

    ``hot`` is given by the subclass that ``protocol_class`` makes.
    """

    hot: ClassVar["Hot"]

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        #: whether the parser stands between two requests
        self._between = True
        #: the bytes of the request under way, while it may be worth remembering
        self._raw = b""
        #: the beginning of a request whose head is known, until the rest of it is there
        self._held = b""

    def data_received(self, data: bytes) -> None:
        hot = self.hot
        if self._held:
            data, self._held = self._held + data, b""
        if self._between:
            started = perf_counter()
            cycle: RequestResponseCycle | None = self.cycle
            idle = cycle is None or cycle.response_complete
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

    def _hold(self, hot: "Hot", data: bytes) -> bool:
        """Clients send head and body in two writes: waits for the second where the first is known."""
        end = data.find(b"\r\n\r\n")
        if end >= 0 and hot.table.length(data[: end + 4]) > len(data):
            self._unset_keepalive_if_required()
            self._held = data
            return True
        return False

    def _answer(self, hot: "Hot", answer: HotAnswer, started: float, now: float) -> None:
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
        self.timeout_keep_alive_task = self.loop.call_later(self.timeout_keep_alive, self.timeout_keep_alive_handler)
        hot.add(HotHit(answer, request_id, now, seconds))

    def on_message_begin(self) -> None:
        self._between = False
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        self.scope["extensions"] = {EXTENSION: self._remember}  # type: ignore[dict-item]  # typed for uvicorn's own
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        self._between = True
        super().on_message_complete()

    def _remember(self, answer: HotAnswer) -> None:
        """Called by the ordinary path while it answers the request whose bytes these are."""
        raw, self._raw = self._raw, b""
        end = raw.find(b"\r\n\r\n")
        if end < 0 or self.pipeline or not self._between:
            return
        head = raw[: end + 2].lower()
        length = _content_length(head)
        if length is None or len(raw) != end + 4 + length or any(special in head for special in _SPECIAL):
            return
        if head.startswith(b"post ") and b" http/1.1\r\n" in head:
            self.hot.table.remember(raw, answer)


class Hot:
    """What a ``HotProtocol`` needs of the app. ``cors``: whether answers differ for pages of other origins."""

    def __init__(self, table: HotTable, ids: RequestIds, add: Callable[[HotHit], None], *, cors: bool) -> None:
        self.table = table
        self.ids = ids
        self.add = add
        self.vary = b"vary: Origin\r\n" if cors else b""


def protocol_class(hot: Hot) -> type[Protocol]:
    """``HotProtocol``, or the plain protocol where uvicorn is not the one this was written for."""
    if not all(callable(getattr(Protocol, name, None)) for name in _NEEDED):
        return Protocol
    return type("BoundHotProtocol", (HotProtocol,), {"hot": hot})


def _content_length(head: bytes) -> int | None:
    name = b"\r\ncontent-length:"
    at = head.find(name)
    if at < 0 or head.find(name, at + 1) >= 0:
        return None
    value = head[at + len(name) : head.find(b"\r\n", at + 2)].strip()
    return int(value) if value.isdigit() else None
