"""One caller's view of an answer that others may get too: usage shown or hidden, and the caller's own echo."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import orjson

from llmproxy.wire import sse
from llmproxy.wire.dialect import Dialect
from llmproxy.wire.echo import echoing


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
        if b'"response":' not in frame:
            return frame
        event = orjson.loads(sse.data(frame))
        response = event.get("response")
        if not isinstance(response, dict) or (echoed := echoing(response, echo)) is response:
            return frame
        return sse.frame(orjson.dumps({**event, "response": echoed}), sse.event(frame))
