"""Whether a load was borne well: what was seen beside what is wanted. Pure."""

from collections.abc import Iterator
from dataclasses import dataclass

from llmproxy.cli.format import NOTHING
from llmproxy.observe.access_log import duration


@dataclass(frozen=True)
class Limits:
    """What is wanted: times in seconds, shares from 0 to 1."""

    #: of all questions, at most
    p95: float
    #: share of requests that failed, at most
    errors: float
    #: of the hot set, at least
    hit_rate: float
    #: by which share of a miss's median a hit's is below it, at least
    quicker: float


@dataclass(frozen=True)
class Seen:
    """The same as it was, and the share of tasks that were finished; None for what was not asked."""

    p95: float | None
    errors: float | None
    hit_rate: float | None
    quicker: float | None
    finished: float | None


@dataclass(frozen=True)
class Check:
    """One line of the verdict."""

    what: str
    seen: str
    wanted: str
    #: None for what was not asked
    kept: bool | None

    @property
    def row(self) -> list[str]:
        return [self.what, self.seen, self.wanted, _WORDS[self.kept]]


_WORDS = {True: "kept", False: "MISSED", None: "not asked"}


def verdict(seen: Seen, limits: Limits) -> Iterator[Check]:
    """Line by line. A run in which nothing was answered keeps nothing."""
    p95, errors, rate, quicker = seen.p95, seen.errors, seen.hit_rate, seen.quicker
    kept = p95 is not None and p95 <= limits.p95
    yield Check("P95 of all questions", duration(p95), f"at most {duration(limits.p95)}", kept)
    kept = errors is not None and errors <= limits.errors
    yield Check("requests that failed", share_of(errors), f"at most {share_of(limits.errors)}", kept)
    yield _at_least("hit rate of the hot set", rate, limits.hit_rate)
    yield _at_least("hits quicker than misses by", quicker, limits.quicker)
    # they may wait until the load is over: how many make it says little, but none means that nobody works on them
    finished = seen.finished
    yield Check("finished tasks", share_of(finished), "some", None if finished is None else finished > 0)


def _at_least(what: str, share: float | None, limit: float) -> Check:
    return Check(what, share_of(share), f"at least {share_of(limit)}", None if share is None else share >= limit)


def share_of(share: float | None) -> str:
    """``99.2%``."""
    return NOTHING if share is None else f"{share:.1%}"
