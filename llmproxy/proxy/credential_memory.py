"""Which callers' credentials the model servers take: what one has refused gets no answer that others' brought."""

from collections.abc import Callable, Mapping
from time import monotonic

from cachetools import LRUCache, TTLCache

#: how many credentials are remembered, of each kind
_MOST = 10_000
#: how long a refusal counts at the servers that may not even ask for a key
_REFUSED_SECONDS = 300.0
_REFUSALS = frozenset({401, 403})


class AcceptedCredentials:
    """Fingerprints by server, in memory only. A server that has refused anybody, the proxy too, checks keys: there,
    only those whom it has answered are given what is stored.

    ``refused`` is called when somebody may no longer be given what they were given before.
    """

    def __init__(self, refused: Callable[[], None]) -> None:
        self._on_refusal = refused
        self._checking: set[str] = set()
        self._accepted: LRUCache[tuple[str, str], bool] = LRUCache(_MOST)
        self._refused: TTLCache[tuple[str, str], bool] = TTLCache(_MOST, _REFUSED_SECONDS, monotonic)

    def note(self, server: str, credential: str, status: int) -> None:
        """Takes the status of a server's answer to a model's call. ``credential`` "" is none of a caller's."""
        self.note_refusal(server, credential, status)
        mark = (server, credential)
        if credential and status == 200 and (mark not in self._accepted or mark in self._refused):
            self._accepted[mark] = True
            self._refused.pop(mark, None)

    def note_refusal(self, server: str, credential: str, status: int) -> None:
        """The same for any other request: that it was answered says nothing, as some paths are open."""
        mark = (server, credential)
        if not credential or status not in _REFUSALS:
            return
        is_repeated = mark in self._refused
        self._checking.add(server)
        self._accepted.pop(mark, None)
        self._refused[mark] = True
        if not is_repeated:
            self._on_refusal()

    def is_accepted(self, credential: str, servers: Mapping[str, bool | None]) -> bool:
        """Whether a caller may be given what others' requests brought from one of these servers.

        With each server stands whether it takes the credential as far as its own pages tell, None where they are open.
        """
        if not credential or not servers:
            return True
        for server in servers:
            if (server, credential) in self._refused:
                return False
        is_accepted = False
        for server, takes in servers.items():
            mark = (server, credential)
            if takes and mark not in self._accepted:
                self._accepted[mark] = True
            is_accepted = is_accepted or mark in self._accepted or (takes is None and server not in self._checking)
        return is_accepted
