"""Which callers' credentials the model servers take: what one has refused gets no answer that others' brought."""

from collections.abc import Callable, Iterable
from time import monotonic

from cachetools import LRUCache, TTLCache

#: how many credentials are remembered, of each kind
_MOST = 10_000
#: how long a refusal counts at the servers that may not even ask for a key
_REFUSED_SECONDS = 300.0
_REFUSALS = frozenset({401, 403})


class AcceptedCredentials:
    """Fingerprints by server, in memory only. A server that has refused anybody checks keys: from then on, only those
    whom it has answered are given what is stored.

    ``refused`` is called when somebody may no longer be given what they were given before.
    """

    def __init__(self, refused: Callable[[], None]) -> None:
        self._tell = refused
        self._checking: set[str] = set()
        self._accepted: LRUCache[tuple[str, str], bool] = LRUCache(_MOST)
        self._refused: TTLCache[tuple[str, str], bool] = TTLCache(_MOST, _REFUSED_SECONDS, monotonic)

    def note(self, server: str, credential: str, status: int) -> None:
        """Takes the status of a server's answer to a caller's request. ``credential`` "" is none of a caller's."""
        mark = (server, credential)
        if not credential:
            return
        if status in _REFUSALS:
            known = mark in self._refused
            self._checking.add(server)
            self._accepted.pop(mark, None)
            self._refused[mark] = True
            if not known:
                self._tell()
        elif status == 200:
            self._accepted[mark] = True
            self._refused.pop(mark, None)

    def is_accepted(self, credential: str, servers: Iterable[str]) -> bool:
        """Whether a caller may be given what others' requests brought from one of these servers."""
        marks = [(server, credential) for server in servers]
        if not credential or not marks:
            return True
        if any(mark in self._refused for mark in marks):
            return False
        return any(mark[0] not in self._checking or mark in self._accepted for mark in marks)
