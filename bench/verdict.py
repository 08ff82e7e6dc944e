"""The targets, and whether they are reached."""

from collections.abc import Iterator
from dataclasses import dataclass

from compare import Results, markdown, number


@dataclass
class Check:
    """One line of a target. ``met`` None: could not be measured this time."""

    target: int
    what: str
    wanted: str
    measured: str
    met: bool | None


class Verdict:
    """Compares what was measured with what is wanted. All but the first two arguments are names of targets.

    ``reference`` is llmproxy at an earlier commit, ``relay`` the barest relay of the same parts.
    """

    def __init__(
        self, results: Results, own: dict, ours: str, nginx: str, litellm: str, reference: str, relay: str
    ) -> None:
        self._results = results
        self._own = own
        self._ours = ours
        self._nginx = nginx
        self._litellm = litellm
        self._reference = reference
        self._relay = relay

    def table(self) -> str:
        words = {True: "reached", False: "**missed**", None: "not measured"}
        rows = [[c.target, c.what, c.wanted, c.measured, words[c.met]] for c in self.checks()]
        return markdown(["#", "what", "wanted", "measured", ""], rows)

    def checks(self) -> list[Check]:
        return [
            *self._hits(),
            *self._streams(),
            *self._rows(),
            *self._misses(),
            *self._relayed(),
            *self._others(),
            *self._jobs(),
            *self._over_time(),
        ]

    def _value(self, target: str, mode: str, connections: int, what: str) -> float | None:
        return self._results.median(target, mode, connections, what)

    def _ratio(self, mode: str, connections: int, what: str, other: str) -> float | None:
        ours = self._value(self._ours, mode, connections, what)
        theirs = self._value(other, mode, connections, what)
        return ours / theirs if ours is not None and theirs else None

    def _over_direct(self, mode: str, what: str, target: str = "") -> float | None:
        value, direct = self._value(target or self._ours, mode, 1, what), self._value("direct", mode, 1, what)
        return value - direct if value is not None and direct is not None else None

    def _hits(self) -> Iterator[Check]:
        for connections in (16, 64):
            name = f"hit in memory, {connections} connections"
            yield at_least(1, f"{name}, x nginx", 0.6, self._ratio("hit", connections, "rate", self._nginx), 2)
            yield at_least(1, f"{name}, x LiteLLM", 200, self._ratio("hit", connections, "rate", self._litellm))
        yield at_most(2, "hit p50, 1 connection, x nginx", 1.5, self._ratio("hit", 1, "p50", self._nginx), 2)

    def _streams(self) -> Iterator[Check]:
        for connections in (1, 16):
            name = f"hit of a stream, {connections} connection{'s' if connections > 1 else ''}, x nginx"
            yield at_least(3, name, 0.5, self._ratio("stream_hit", connections, "rate", self._nginx), 2)
        # a single connection waits for the load generator's turns: nginx does not get there either
        ratio = self._ratio("stream_hit", 16, "rate", self._litellm)
        yield at_least(3, "hit of a stream, 16 connections, x LiteLLM", 1000, ratio)

    def _rows(self) -> Iterator[Check]:
        rows = self._own.get("rows", {})
        small, large = rows.get("small"), rows.get("large")
        yield at_most(4, "hit in SQL p50, 1,000 rows, us", 300, small)
        yield at_most(4, f"the same, {rows.get('rows', 0):,} rows, us", 300, large)
        yield at_most(4, "many rows x few rows", 1.3, large / small if small and large else None, 2)

    def _misses(self) -> Iterator[Check]:
        yield at_most(5, "miss, added p50, 1 connection, us", 400, self._over_direct("miss", "p50"))
        for connections in (16, 64):
            ratio = self._ratio("miss", connections, "rate", self._litellm)
            yield at_least(6, f"miss, {connections} connections, x LiteLLM", 40, ratio, 1)
        many, some = (self._value(self._ours, "miss", connections, "rate") for connections in (64, 16))
        yield at_least(6, "miss, 64 connections x 16 connections", 0.9, many / some if many and some else None, 2)

    def _relayed(self) -> Iterator[Check]:
        yield at_most(7, "first chunk of a miss, added, us", 800, self._over_direct("first", "miss_first"))
        yield at_most(7, "CPU for a relayed chunk, us", 60, self._value(self._ours, "paced", 32, "chunk"), 1)
        yield at_most(7, "the same, x nginx", 4, self._ratio("paced", 32, "chunk", self._nginx), 2)

    def _others(self) -> Iterator[Check]:
        for kind in ("plain", "stream"):
            crowd = self._own.get(f"crowd_{kind}", {})
            yield at_most(8, f"100 identical at once ({kind}): upstream calls", 1, crowd.get("calls"))
            yield at_most(8, f"100 identical at once ({kind}): last x single", 1.2, crowd.get("ratio"), 2)
        start = self._own.get("start", {}).get(self._ours, {})
        yield at_most(9, "start to the first 200, s", 1.0, start.get("seconds"), 2)
        yield at_most(9, "idle memory (resident), MB", 90, start.get("memory"))
        yield at_most(10, "memory for an entry over its bytes, B", 500, self._own.get("entry"))

    def _jobs(self) -> Iterator[Check]:
        jobs = self._own.get("jobs", {})
        large, beside = jobs.get("memory", {}), jobs.get("beside", {})
        yield at_least(11, "queue, instant upstream, items/s", 1000, jobs.get("rate", {}).get("rate"))
        yield at_most(11, "accepting a background task p50, ms", 5, jobs.get("accepting", {}).get("p50"), 1)
        added = large["most"] - large["idle"] if large else None
        yield at_most(12, f"batch of {large.get('lines', 0):,} lines, memory over idle, MB", 150, added)
        yield at_most(12, "the same, longest wait of a request to /health, ms", 50, large.get("stall"))
        ratio = beside["beside"]["p95"] / beside["alone"]["p95"] if beside else None
        yield at_most(12, "interactive P95 beside a batch x alone, four slots", 1.5, ratio, 2)

    def _over_time(self) -> Iterator[Check]:
        old = f"x {self._reference}"
        for connections in (1, 16):
            name = f"CPU of a miss, {connections} connection{'s' if connections > 1 else ''}"
            yield at_most(13, f"{name}, {old}", 0.5, self._ratio("miss", connections, "cpu", self._reference), 2)
            yield at_most(14, f"{name}, x bare relay", 3, self._ratio("miss", connections, "cpu", self._relay), 2)
        for line, bound, name, mode, what in (
            (15, 0.4, "added p50 of a miss, 1 connection", "miss", "p50"),
            (16, 0.5, "added time to the first chunk of a streamed miss", "first", "miss_first"),
        ):
            ours, then = self._over_direct(mode, what), self._over_direct(mode, what, self._reference)
            yield at_most(line, f"{name}, {old}", bound, ours / then if ours and then else None, 2)
        yield at_most(16, f"CPU for a relayed chunk, {old}", 0.6, self._ratio("paced", 32, "chunk", self._reference), 2)
        ours, then = (self._own.get("sql", {}).get(name) for name in (self._ours, self._reference))
        yield at_most(17, f"hit in SQL p50, {old}", 0.4, ours / then if ours and then else None, 2)
        starts = self._own.get("start", {})
        now, before = starts.get(self._ours, {}), starts.get(self._reference, {})
        for name, what, bound in (("start to the first 200", "seconds", 0.7), ("idle memory", "memory", 0.85)):
            yield at_most(18, f"{name}, {old}", bound, now[what] / before[what] if now and before else None, 2)
        rates = self._own.get("jobs", {}).get("rates", {})
        ours, then = rates.get(self._ours), rates.get(self._reference)
        yield at_least(19, f"batch items per second, {old}", 1.8, ours / then if ours and then else None, 2)
        for mode in ("hit", "stream_hit"):
            for connections in (1, 16):
                name = f"{mode.replace('_', ' ')}, {connections} connection{'s' if connections > 1 else ''}, {old}"
                yield at_least(1, name, 0.95, self._ratio(mode, connections, "rate", self._reference), 2)


def at_least(target: int, what: str, bound: float, value: float | None, digits: int = 0) -> Check:
    met = None if value is None else value >= bound
    return Check(target, what, f">= {bound:,g}", number(value, digits), met)


def at_most(target: int, what: str, bound: float, value: float | None, digits: int = 0) -> Check:
    met = None if value is None else value <= bound
    return Check(target, what, f"<= {bound:,g}", number(value, digits), met)
