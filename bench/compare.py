#!/usr/bin/env python3
"""Measures OpenAI-compatible servers side by side: one interleaved run, medians, ratios.

Needs `wrk` and nothing but the standard library. Loopback only. A target is

    NAME=URL[,path=/v1/chat/completions][,model=M][,header=K: V][,nocache=1][,modes=hit+miss]

Every round measures each target in each mode; targets alternate (A B C, C B A, ...), so that what drifts drifts for
all. CPU is that of the process tree behind the port, so it holds even where the load generator is the limit.

Modes: hit          the same body every time
       miss         every body is new
       stream_hit   the same with "stream": true;  stream_miss: the upstream bursts 100 chunks
       paced        new streams, 100 chunks 10 ms apart, 32 at a time: CPU for a relayed chunk
       first        one connection: time to the first byte of a stream and to its end, miss and hit
       rows         1,000 bodies in turn
"""

import argparse
import json
import random
import statistics
import sys
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import load
from measured import Target

MODES = ("hit", "miss", "stream_hit", "stream_miss", "paced", "first")
CONNECTIONS = {"paced": (32,), "first": (1,), "rows": (1,)}

Point = tuple[str, str, int]


@dataclass
class Plan:
    """What is measured, and how often."""

    targets: list[Target]
    modes: Sequence[str] = MODES
    connections: Sequence[int] = (1, 16, 64)
    stream_connections: Sequence[int] = (1, 16)
    rounds: int = 5
    seconds: float = 2
    #: seconds of each kind of load before the first round
    warm: float = 2
    #: the load generator's core; None: anywhere
    core: int | None = 1
    #: URL of the stub that the proxies call, to see that hits do not reach it
    upstream: str = ""

    def levels(self, mode: str) -> Sequence[int]:
        return CONNECTIONS.get(mode) or (self.stream_connections if load.is_stream(mode) else self.connections)


@dataclass
class Results:
    """(target, mode, connections) -> one measurement a round."""

    rounds: dict[Point, list[dict]] = field(default_factory=dict)

    def add(self, point: Point, measurement: dict) -> None:
        self.rounds.setdefault(point, []).append(measurement)

    def median(self, target: str, mode: str, connections: int, what: str) -> float | None:
        values = [m[what] for m in self.rounds.get((target, mode, connections), ()) if m.get(what) is not None]
        return statistics.median(values) if values else None

    def save(self, path: Path) -> None:
        rows = [
            {"target": target, "mode": mode, "connections": connections, "rounds": rounds}
            for (target, mode, connections), rounds in self.rounds.items()
        ]
        path.write_text(json.dumps(rows))


def compare(plan: Plan) -> Results:
    results = Results()
    if plan.warm:
        for target in plan.targets:
            for mode in ("miss", "hit", "stream_miss", "stream_hit"):
                if target.takes(mode):
                    load.wrk(target, mode, 8, plan.warm, plan.core, _fresh())
    for number in range(plan.rounds):
        order = plan.targets if number % 2 == 0 else plan.targets[::-1]
        for mode in plan.modes:
            for connections in plan.levels(mode):
                for target in order:
                    if target.takes(mode):
                        _measure(plan, results, target, mode, connections)
        print(f"round {number + 1} of {plan.rounds} done", file=sys.stderr, flush=True)
    return results


def _measure(plan: Plan, results: Results, target: Target, mode: str, connections: int) -> None:
    run = f"{mode}{connections}x{_fresh()}"
    point = (target.name, mode, connections)
    try:
        if mode == "first":
            results.add(point, load.first_bytes(target, 40, run, plan.core))
            return
        if mode == "paced":
            _rest(target)
        if load.is_hit(mode) and target.caches:
            load.prime(target, mode, run)
        before = load.asked(plan.upstream) if plan.upstream else 0
        seconds = max(4, plan.seconds) if mode == "paced" else plan.seconds
        measurement = load.wrk(target, mode, connections, seconds, plan.core, run)
    except OSError as error:
        print(f"{target.name}, {mode}: {error}", file=sys.stderr)
        return
    if measurement is None:
        print(f"{target.name}, {mode}, {connections}: no answer", file=sys.stderr)
        return
    if plan.upstream and target.name != "direct":
        measurement["upstream"] = (load.asked(plan.upstream) - before) / measurement["requests"]
    measurement["memory"] = target.memory()
    results.add(point, measurement)


def _rest(target: Target, seconds: float = 60) -> None:
    """Waits until the target has done with what the floods before left behind (its text index): slow streams use little
    CPU, and it would count as theirs."""
    processes, ends = target.processes(), time.monotonic() + seconds
    while time.monotonic() < ends:
        before = target.cpu(processes)
        time.sleep(0.5)
        if target.cpu(processes).since(before) < 0.02:
            return


def _fresh() -> str:
    return f"{random.getrandbits(40):x}"


def tables(plan: Plan, results: Results, reference: str) -> str:
    """Every measurement as Markdown; rates also as multiples of ``reference``'s."""
    return "\n\n".join(
        _first_table(plan, results) if mode == "first" else _table(plan, results, mode, reference)
        for mode in plan.modes
    )


def _table(plan: Plan, results: Results, mode: str, reference: str) -> str:
    paced = mode == "paced"
    head = ["", "connections", "requests/s", f"x {reference}", "p50 us", "p99 us", "p50 over direct us"]
    head += ["CPU us/chunk" if paced else "CPU us", "core", "asked upstream", "memory MB", "errors"]
    rows = []
    for connections in plan.levels(mode):
        base = results.median(reference, mode, connections, "rate")
        direct = results.median("direct", mode, connections, "p50")
        for target in plan.targets:
            point = (target.name, mode, connections)
            if point not in results.rounds:
                continue
            rate, p50 = results.median(*point, "rate"), results.median(*point, "p50")
            rows.append(
                [
                    target.name,
                    connections,
                    number(rate),
                    number(rate / base if base else None, 3),
                    number(p50),
                    number(results.median(*point, "p99")),
                    number(p50 - direct if direct is not None else None),
                    number(results.median(*point, "chunk" if paced else "cpu"), 1),
                    number(results.median(*point, "busy"), 2),
                    number(results.median(*point, "upstream"), 2),
                    number(results.median(*point, "memory")),
                    sum(m["errors"] for m in results.rounds[point]),
                ]
            )
    return f"### {mode}\n\n{markdown(head, rows)}"


def _first_table(plan: Plan, results: Results) -> str:
    head = [
        "",
        "miss: first byte us",
        "over direct us",
        "miss: end us",
        "over direct us",
        "hit: first byte us",
        "hit: end us",
    ]
    direct = {what: results.median("direct", "first", 1, what) for what in ("miss_first", "miss_end")}
    rows = []
    for target in plan.targets:
        row = [target.name]
        for what in ("miss_first", "miss_end", "hit_first", "hit_end"):
            value = results.median(target.name, "first", 1, what)
            row.append(number(value))
            if what in direct:
                known = value is not None and direct[what] is not None
                row.append(number(value - direct[what] if known else None))
        if any(cell for cell in row[1:]):
            rows.append(row)
    return f"### first\n\n{markdown(head, rows)}"


def number(value: float | None, digits: int = 0) -> str:
    return "" if value is None else f"{value:,.{digits}f}"


def markdown(head: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """A table, numbers to the right."""
    lines = ["| " + " | ".join(head) + " |", "|---" + "|---:" * (len(head) - 1) + "|"]
    lines += ["| " + " | ".join(str(cell) for cell in row) + " |" for row in rows]
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--target", action="append", required=True, help="may be given several times")
    parser.add_argument("--direct", default="", help="URL of a stub on the servers' core: what added latency refers to")
    parser.add_argument("--upstream", default="", help="URL of the stub that the proxies call")
    parser.add_argument("--modes", default=",".join(MODES))
    parser.add_argument("--connections", default="1,16,64")
    parser.add_argument("--stream-connections", default="1,16")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=2)
    parser.add_argument("--warm", type=float, default=2)
    parser.add_argument("--core", type=int, default=1, help="core of the load generator; -1 does not pin it")
    parser.add_argument("--reference", help="the target that ratios refer to; the first one if not given")
    parser.add_argument("--json", type=Path, help="also write every measurement here")
    given = parser.parse_args()
    targets = [Target.parse(text) for text in given.target]
    reference = given.reference or targets[0].name
    if given.direct:
        targets.insert(0, Target("direct", given.direct, caches=False))
    plan = Plan(
        targets,
        modes=given.modes.split(","),
        connections=_integers(given.connections),
        stream_connections=_integers(given.stream_connections),
        rounds=given.rounds,
        seconds=given.seconds,
        warm=given.warm,
        core=None if given.core < 0 else given.core,
        upstream=given.upstream,
    )
    results = compare(plan)
    if given.json:
        results.save(given.json)
    print(tables(plan, results, reference))


def _integers(text: str) -> list[int]:
    return [int(word) for word in text.split(",")]


if __name__ == "__main__":
    main()
