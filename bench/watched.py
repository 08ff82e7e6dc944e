"""What it costs to be watched: one server with nothing but the cache, and one with all that looks on, side by side.

    .venv/bin/python bench/watched.py
    .venv/bin/python bench/watched.py --rounds 2 --modes hit,miss

``bare`` keeps no history and no jobs and logs nothing. ``watched`` is the program as it comes, while Prometheus scrapes
it every five seconds and a page polls it every two. ``traced`` sends traces and metrics to a collector, too.
"""

import argparse
import http.server
import sys
import threading
import urllib.request
from contextlib import contextmanager, suppress
from pathlib import Path

from compare import Plan, compare, tables
from servers import Child, Cores, Servers, build_stub, free_port, target

RUN = Path(__file__).parent / "run"
_PAGE = ("/api/performance?window=5m", "/api/health", "/api/history?limit=50", "/api/cache/stats")
_BARE = {"LLMPROXY_HISTORY": "false", "LLMPROXY_JOBS": "false", "LLMPROXY_LOG_LEVEL": "warning"}


class Collector(http.server.BaseHTTPRequestHandler):
    """Takes everything and looks at nothing."""

    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["content-length"]))
        self.send_response(200)
        self.send_header("content-length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None: ...


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=2)
    parser.add_argument("--modes", default="hit,miss,stream_hit,stream_miss,paced,first")
    parser.add_argument("--collector", type=int, default=0, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.collector:
        http.server.ThreadingHTTPServer(("127.0.0.1", given.collector), Collector).serve_forever()
    RUN.mkdir(exist_ok=True)
    with Servers(RUN, Cores.choose(), build_stub(RUN)) as servers:
        measure(servers, given)


def measure(servers: Servers, given: argparse.Namespace) -> None:
    cores = servers.cores
    upstream = servers.stub("upstream", cores.load)
    port = free_port()
    servers.start("collector", [sys.executable, __file__, "--collector", port], cores.load, port)
    traced = {"OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{port}", "OTEL_METRIC_EXPORT_INTERVAL": 5000}
    children = [
        servers.llmproxy("bare", upstream, fresh("bare.db"), **_BARE),
        servers.llmproxy("watched", upstream, fresh("watched.db")),
        servers.llmproxy("traced", upstream, fresh("traced.db"), **traced),
    ]
    targets = [target(servers.stub("direct", cores.servers), "direct", caches=False)]
    targets += [target(child, child.name) for child in children]
    plan = Plan(
        targets,
        given.modes.split(","),
        rounds=given.rounds,
        seconds=given.seconds,
        core=cores.load,
        upstream=upstream.url,
    )
    with polled(children[1:]):
        results = compare(plan)
    print(tables(plan, results, "bare"))


@contextmanager
def polled(children: list[Child]):
    """What a Prometheus and an open page ask meanwhile."""
    over = threading.Event()

    def ask(paths: tuple[str, ...], seconds: float) -> None:
        while not over.wait(seconds):
            for child in children:
                for path in paths:
                    with suppress(OSError):
                        urllib.request.urlopen(child.url + path, timeout=10).read()

    threads = [threading.Thread(target=ask, args=each) for each in ((("/metrics",), 5.0), (_PAGE, 2.0))]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        over.set()
        for thread in threads:
            thread.join()


def fresh(name: str) -> Path:
    for path in RUN.glob(f"{name}*"):
        path.unlink()
    return RUN / name


if __name__ == "__main__":
    main()
