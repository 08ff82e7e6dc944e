"""Answers to requests that came before to the last byte: looked up by the request's raw bytes, nothing parsed.

Two requests with the same bytes, head and body, are the same request: same caller, same directives, same model. So the
answer that the ordinary path gave is right again, for as long as its entry is still the memory tier's, is fresh, and
the identity of the models has not changed and was read lately. All of it is checked each time.
"""

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

from llmproxy.cache.entry import Entry
from llmproxy.wire.exchange import Exchange

#: a request larger than this is not worth remembering by its bytes
LONGEST = 64 * 1024


@dataclass(slots=True)
class HotAnswer:
    """What the ordinary path answered.

    ``head(now)`` gives the header lines that stay the same for a second. ``request_id`` is set where the request
    named its own. ``template`` is the exchange that the ordinary path had, as a pattern for the next ones.
    """

    entry: Entry
    body: bytes
    head: Callable[[float], bytes]
    request_id: str
    epoch: int
    template: Exchange
    second: int = 0
    lines: bytes = b""

    @property
    def size(self) -> int:
        """Bytes that it keeps in memory: the request twice, as bytes and as body, the rendering, and the entry."""
        return 2 * len(self.template.request_body) + len(self.body) + self.entry.size

    def head_at(self, now: float) -> bytes:
        second = int(now)
        if second != self.second:
            self.second, self.lines = second, self.head(now)
        return self.lines


class RawRequestIndex:
    """Raw request -> its answer, bounded in entries and in bytes: an answer holds on to its entry.

    Forgets by itself what is no longer right.
    """

    def __init__(
        self, size: int, max_bytes: int, current: Callable[[bytes], Entry | None], epoch: Callable[[], int]
    ) -> None:
        """``current(key)`` is the memory tier's entry, touched; ``epoch()`` grows when a model's identity
        changes, and is -1 while it would have to be read anew."""
        self._size = size
        self._max_bytes = max_bytes
        self._current = current
        self._epoch = epoch
        #: the least recently used first
        self._answers: OrderedDict[bytes, HotAnswer] = OrderedDict()
        self._bytes = 0
        #: head -> length of the whole request, and how many requests have this head
        self._heads: dict[bytes, list[int]] = {}

    def __len__(self) -> int:
        return len(self._answers)

    def find(self, raw: bytes, now: float) -> HotAnswer | None:
        answer = self._answers.get(raw)
        if answer is None:
            return None
        epoch = self._epoch()
        if epoch < 0:
            # the ordinary path asks what stands behind the name; the answer may be right again after that
            return None
        entry = answer.entry
        if entry.expires <= now or answer.epoch != epoch or self._current(entry.key) is not entry:
            self._forget(raw)
            return None
        self._answers.move_to_end(raw)
        return answer

    def clear(self) -> None:
        """Forgets all answers: a caller may no longer be accepted."""
        self._answers.clear()
        self._heads.clear()
        self._bytes = 0

    def length(self, head: bytes) -> int:
        """Bytes of a whole request with this head, if the index has one; else 0."""
        counted = self._heads.get(head)
        return 0 if counted is None else counted[0]

    def remember(self, raw: bytes, answer: HotAnswer) -> None:
        """``raw`` is one whole request, head and body."""
        if self._size == 0 or len(raw) > LONGEST or answer.size > self._max_bytes:
            return
        if raw in self._answers:
            self._forget(raw)
        while len(self._answers) >= self._size or self._bytes + answer.size > self._max_bytes:
            self._forget(next(iter(self._answers)))
        self._heads.setdefault(_head(raw), [len(raw), 0])[1] += 1
        self._answers[raw] = answer
        self._bytes += answer.size

    def _forget(self, raw: bytes) -> None:
        self._bytes -= self._answers.pop(raw).size
        head = _head(raw)
        counted = self._heads[head]
        counted[1] -= 1
        if counted[1] == 0:
            del self._heads[head]


def _head(raw: bytes) -> bytes:
    return raw[: raw.index(b"\r\n\r\n") + 4]
