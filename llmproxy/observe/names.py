"""A bounded set of label values, so that names invented by callers cannot grow the metrics."""

OTHER = "other"
NONE = "none"

LONGEST = 100


class Names:
    """Lets at most ``limit`` distinct names through, ever; every further one, and every odd one, is ``other``."""

    def __init__(self, limit: int = 100) -> None:
        self._limit = limit
        self._known: set[str] = set()

    def label(self, name: str, *, proven: bool = True) -> str:
        """The label for ``name``; ``none`` for an empty one. One that is not ``proven`` takes no place."""
        if name in self._known:
            return name
        if not name:
            return NONE
        if not proven or len(self._known) >= self._limit or len(name) > LONGEST or not name.isprintable():
            return OTHER
        self._known.add(name)
        return name
