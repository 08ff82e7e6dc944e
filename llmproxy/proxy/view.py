"""One caller's view of an answer that others may get too: usage shown or hidden, and the caller's own echo."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import orjson

from llmproxy.wire import sse
from llmproxy.wire.dialect import Dialect, Filter
from llmproxy.wire.documents import dump, dump_leniently, peek, read_leniently
from llmproxy.wire.echo import echoing, echoing_event

#: members that an event has whose echo may have to change
_HOLDING = (b'"response"', b'"choices"', b'"id"')


@dataclass(frozen=True, slots=True)
class View:
    """``usage``: whether usage frames are shown. ``echo``: what the answer repeats of this request, None if nothing."""

    dialect: Dialect
    usage: bool
    echo: Mapping[str, Any] | None = None

    def document(self, body: bytes) -> bytes:
        """A plain answer as this caller gets it."""
        if self.echo is None:
            return body
        document = orjson.loads(body)
        echoed = echoing(document, self.echo)
        return body if echoed is document else dump(echoed)

    def frames(self, frames: list[bytes]) -> list[bytes]:
        """All frames of a stream as this caller gets them."""
        shown = self.shown()
        return shown.feed(frames) + shown.close()

    def shown(self) -> "StreamView":
        """What shows a stream to this caller as it comes."""
        return StreamView(self, None if self.usage else self.dialect.usage_filter())

    def rendered(self, body: bytes) -> bytes:
        """A plain answer as the stream that amounts to it."""
        return b"".join(self.frames(self.dialect.render(orjson.loads(body))))

    @property
    def as_is(self) -> bool:
        """Whether frames are shown unchanged, but for what asking for usage leaves in them."""
        return self.echo is None


class StreamView:
    """One stream on its way to one caller."""

    def __init__(self, view: View, filter: Filter | None) -> None:
        self._view = view
        self._filter = filter

    def feed(self, frames: list[bytes]) -> list[bytes]:
        """Frames as the caller gets them."""
        if self._filter is not None:
            frames = self._filter.feed(frames)
        return self._echoing(frames)

    def close(self) -> list[bytes]:
        """What was held back, once there is no more."""
        return [] if self._filter is None else self._echoing(self._filter.close())

    def _echoing(self, frames: list[bytes]) -> list[bytes]:
        echo = self._view.echo
        return frames if echo is None else [_echoed(frame, echo) for frame in frames]


def _echoed(frame: bytes, echo: Mapping[str, Any]) -> bytes:
    # most events of a Response hold neither it nor an id
    if not any(name in frame for name in _HOLDING):
        return frame
    data, write = sse.data(frame), dump
    event = peek(data)
    if event is None:
        # an answer has one id, in the events that are no strict JSON too
        event, write = read_leniently(data), dump_leniently
    if event is None:
        return frame
    echoed = echoing_event(event, echo)
    return frame if echoed is event else sse.frame(write(echoed), sse.event(frame))
