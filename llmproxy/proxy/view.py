"""One caller's view of an answer that others may get too: usage shown or hidden, and the caller's own echo."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import orjson

from llmproxy.wire import sse
from llmproxy.wire.dialect import Dialect
from llmproxy.wire.documents import peek
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
        return body if echoed is document else orjson.dumps(echoed)

    def frames(self, frames: list[bytes]) -> list[bytes]:
        """Frames as this caller gets them."""
        if not self.usage:
            frames = [frame for frame in frames if not self.dialect.usage_only(frame)]
        if self.echo is not None:
            frames = [self._echoed(frame, self.echo) for frame in frames]
        return frames

    def rendered(self, body: bytes) -> bytes:
        """A plain answer as the stream that amounts to it."""
        return b"".join(self.frames(self.dialect.render(orjson.loads(body))))

    @property
    def as_is(self) -> bool:
        """Whether frames without usage ones are shown unchanged."""
        return self.echo is None

    def _echoed(self, frame: bytes, echo: Mapping[str, Any]) -> bytes:
        # most events of a Response hold neither it nor an id
        if not any(name in frame for name in _HOLDING) or (event := peek(sse.data(frame))) is None:
            return frame
        echoed = echoing_event(event, echo)
        return frame if echoed is event else sse.frame(orjson.dumps(echoed), sse.event(frame))
