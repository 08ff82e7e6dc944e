"""What was measured: times by what the cache did, and what went wrong."""

from dataclasses import dataclass, field
from typing import Any

from llmproxy.observe.distribution import Distribution

#: a stage ends with so many errors
MOST_ERRORS = 10


@dataclass(frozen=True, slots=True)
class Timed:
    """One answer. ``cache`` is the word of ``X-Cache`` in lower case, or what else it was; ``error`` is "" where it is
    a success."""

    seconds: float
    cache: str = ""
    error: str = ""


@dataclass
class Figures:
    """A stage's. ``seconds`` is how long it took as a whole, ``answers`` how many questions were answered in it."""

    name: str
    seconds: float = 0.0
    answers: int = 0
    errors: int = 0
    #: what the first error was
    reason: str = ""
    #: what the cache did -> seconds of the answers
    times: dict[str, Distribution] = field(default_factory=dict)
    #: why the stage was left out; "" where it was not
    skipped: str = ""

    def add(self, timed: Timed, answers: int = 1) -> None:
        """``answers`` is how many questions were answered in this time."""
        if timed.error:
            self.errors += 1
            self.reason = self.reason or timed.error
        else:
            self.answers += answers
            self.times.setdefault(timed.cache, Distribution()).add(timed.seconds)

    @property
    def untouched(self) -> bool:
        """Whether nothing came back yet, neither an answer nor an error."""
        return not self.answers and not self.errors

    @property
    def hopeless(self) -> bool:
        """Whether so much went wrong that the rest will, too."""
        return self.errors >= MOST_ERRORS

    @property
    def rate(self) -> float:
        """Answers a second."""
        return self.answers / self.seconds if self.seconds else 0.0

    def median(self, cache: str) -> float | None:
        """Seconds; None where there were none of these answers."""
        return self.times[cache].quantile(0.5) if cache in self.times else None

    def count(self, cache: str) -> int:
        return self.times[cache].count if cache in self.times else 0

    def document(self) -> dict[str, Any]:
        """JSON-ready."""
        if self.skipped:
            return {"skipped": self.skipped}
        return {
            "seconds": round(self.seconds, 3),
            "answers": self.answers,
            "errors": self.errors,
            "first_error": self.reason or None,
            "per_second": round(self.rate, 3),
            "times": {cache: times.summary() for cache, times in sorted(self.times.items())},
        }


@dataclass
class Repeats:
    """How many questions were asked before, and how many of those needed no generation."""

    asked: int = 0
    #: asked for the first time
    new: int = 0
    #: asked again, and answered from the cache or by a generation that ran already
    spared: int = 0

    @property
    def share(self) -> float | None:
        """Of the questions asked again; None where there were none."""
        again = self.asked - self.new
        return self.spared / again if again else None
