"""One cached answer, in every rendering it can be given in."""

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Position:
    """How far the log of flushes had been read when an answer was begun: which flushes came after it.

    An order by numbers, because clocks are set while answers are made.
    """

    #: flushes that this process had carried out
    epoch: int
    #: which database it was, and the last line of its log
    generation: int
    number: int
    #: monotonic seconds
    at: float


@dataclass(frozen=True, slots=True)
class Entry:
    """A complete answer. Times are Unix seconds.

    ``document`` is the JSON document: an object, or a list (rerank). ``frames`` is the stream's transcript (SSE or
    NDJSON, terminal event included), empty where the answer came as plain JSON. ``ends`` are the end offsets of the
    frames in ``frames`` and ``millis`` the milliseconds since the call began at which each arrived; ``hidden`` are
    start and end of each frame that only a caller who asked for usage gets, or of them all, where the others' frames
    are not among them. All three are native ``array('I')`` bytes, a tenth of tuples. ``both`` is whether it serves
    callers of the other form than the one in which it came.
    """

    key: bytes
    operation: str
    model: str
    scope: str
    namespace: str
    tags: tuple[str, ...]
    created: float
    expires: float
    document: bytes
    frames: bytes = b""
    ends: bytes = b""
    millis: bytes = b""
    hidden: bytes = b""
    headers: tuple[tuple[bytes, bytes], ...] = ()
    upstream_seconds: float = 0.0
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    both: bool = True
    #: where its call began, until it is written; None where no flush can have come since
    begun: Position | None = field(default=None, compare=False, repr=False)

    @property
    def size(self) -> int:
        """Bytes this entry answers for in the tiers' bounds."""
        return len(self.document) + len(self.frames) + len(self.ends) + len(self.millis) + len(self.hidden)
