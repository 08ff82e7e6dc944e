"""What a miss spends its CPU time on: a table by room and file, from the sampling profiler of sampled.py."""

import json
import signal
import sys
import time
from collections import Counter
from pathlib import Path

import load
from compare import markdown, number
from servers import HERE, Child, Servers, free_port, target

#: of the table by file
_ROWS = 30
_CONNECTIONS = (1, 16)


def cost(servers: Servers, upstream: Child, database: Path, seconds: float) -> dict[int, dict[str, float]]:
    """Connections -> place -> microseconds of CPU time for each miss."""
    port, file = free_port(), servers.folder / "samples.json"
    command = [sys.executable, HERE / "sampled.py", file, "serve", "--upstream", upstream.url]
    child = servers.start("sampled", [*command, "--port", port, "--database", database], servers.cores.servers, port)
    child.ready("/health")
    figures = {}
    with servers.running(child):
        asked = target(child, child.name)
        for connections in _CONNECTIONS:
            load.wrk(asked, "miss", connections, 2, servers.cores.load, f"warm {time.time()}")
            child.process.send_signal(signal.SIGUSR1)
            figure = load.wrk(asked, "miss", connections, seconds, servers.cores.load, f"miss {time.time()}")
            file.unlink(missing_ok=True)
            child.process.send_signal(signal.SIGUSR2)
            while not file.exists():
                time.sleep(0.05)
            time.sleep(0.2)
            samples = json.loads(file.read_text())
            figures[connections] = {place: spent / figure["requests"] * 1e6 for place, spent in samples.items()}
    return figures


def table(figures: dict[int, dict[str, float]]) -> str:
    """Markdown: rooms, then the dearest files."""
    files, rooms = {}, {}
    for connections, places in figures.items():
        files[connections] = Counter(places)
        rooms[connections] = Counter()
        for place, spent in places.items():
            thread, _, name = place.rpartition(": ")
            rooms[connections][f"thread {thread}" if thread else name.partition("/")[0]] += spent
    return f"{_table('room or thread', rooms)}\n\n{_table('file', files)}"


def _table(what: str, spent: dict[int, Counter[str]]) -> str:
    total = {connections: places.total() for connections, places in spent.items()}
    order = sorted({name for places in spent.values() for name in places}, key=lambda name: -spent[16][name])
    head = [what] + [f"{connections} connection{'s' if connections > 1 else ''}, us" for connections in spent]
    rows = [[name, *(number(places[name]) for places in spent.values())] for name in order[:_ROWS]]
    return markdown(head, [*rows, ["all", *(number(value) for value in total.values())]])
