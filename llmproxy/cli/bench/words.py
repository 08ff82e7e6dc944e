"""Times, shares and what a process used, as people read them."""

from llmproxy.cli.bench.usage import Used
from llmproxy.cli.columns import NOTHING

#: what ``X-Cache`` says, and the steps of a task, in the order of a table's rows
_ORDER = ("miss", "joined", "hit", "stale", "bypass", "accepted", "finished")


def order(word: str) -> int:
    """Where a row of this word stands."""
    return _ORDER.index(word) if word in _ORDER else len(_ORDER)


def time_of(seconds: float | None) -> str:
    """In the unit that fits: ``0.84 ms``, ``120 ms``, ``1.20 s``."""
    if seconds is None:
        return NOTHING
    if seconds >= 1:
        return f"{seconds:,.2f} s"
    return f"{seconds * 1e3:.0f} ms" if seconds >= 0.01 else f"{seconds * 1e3:.2f} ms"


def share_of(share: float | None) -> str:
    """``99.2%``."""
    return NOTHING if share is None else f"{share:.1%}"


def usage_of(used: Used | None) -> str:
    """What the proxy's process used."""
    if used is None:
        return f"{NOTHING} (its process cannot be looked at from here)"
    return f"{used.cpu:.0%} of a processor, at most {used.memory / 1e6:,.0f} MB of memory"
