#!/usr/bin/env python3
"""`make bench`: starts every server, measures them interleaved, and writes docs/performance.md."""

import argparse
import datetime
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import urllib.request
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import jobs
import own
import page
import phases
from compare import MODES, Plan, Results, compare, tables
from servers import (
    HERE,
    REFERENCE,
    ROOT,
    Child,
    Cores,
    NotReady,
    Servers,
    build_stub,
    install_litellm,
    install_reference,
    missing,
    target,
)
from verdict import Verdict

RUN = HERE / "run"
OURS, ORDINARY, NGINX, LITELLM, RELAY = "llmproxy", "llmproxy, ordinary path", "nginx", "LiteLLM", "bare relay"
#: versions that the figures depend on
_LIBRARIES = (
    "llmproxy",
    "uvicorn",
    "uvloop",
    "httptools",
    "starlette",
    "aiohttp",
    "httpx",
    "sqlalchemy",
    "orjson",
)
_STARTS = {OURS: 5, LITELLM: 2, REFERENCE: 5}


def main() -> int:
    given = arguments()
    if lacking := missing():
        print(f"missing: {' '.join(lacking)}. On Debian: apt-get install {' '.join(lacking)}", file=sys.stderr)
        return 1
    RUN.mkdir(exist_ok=True)
    stub = build_stub(RUN)
    without = "left out on request" if given.no_litellm else install_litellm(RUN)
    reference = RUN / f"reference-{REFERENCE}" / "bin" / "python"
    if not given.no_reference and (reason := install_reference(RUN, REFERENCE)):
        print(f"{REFERENCE} is left out: {reason}", file=sys.stderr)
        given.no_reference = True
    with Servers(RUN, Cores.choose(), stub) as servers:
        plan, results, figures, notes = measure(servers, given, without, "" if given.no_reference else str(reference))
    (RUN / "own.json").write_text(json.dumps(figures))
    results.save(RUN / "results.json")
    verdict = Verdict(results, figures, OURS, NGINX, LITELLM, REFERENCE, RELAY)
    text = page.render(
        machine=machine(),
        versions=versions(),
        verdict=verdict.table(),
        comparison=tables(plan, results, NGINX),
        figures=figures,
        notes=notes,
        plan=plan,
    )
    print(verdict.table())
    if given.page:
        page.write(given.page, text)
    return 0


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=2, help="of each measurement")
    parser.add_argument("--rows", type=int, default=1_000_000, help="of the large database; 0 leaves it out")
    parser.add_argument("--lines", type=int, default=50_000, help="of the large batch; 0 leaves background jobs out")
    parser.add_argument("--modes", default=",".join(MODES))
    parser.add_argument("--no-litellm", action="store_true")
    parser.add_argument("--no-reference", action="store_true", help=f"without the figures of commit {REFERENCE}")
    parser.add_argument("--no-compare", action="store_true", help="only what is measured of llmproxy alone")
    parser.add_argument("--page", type=Path, default=ROOT / "docs" / "performance.md", help="where to write")
    return parser.parse_args()


def measure(
    servers: Servers, given: argparse.Namespace, without: str, reference: str
) -> tuple[Plan, Results, dict, list[str]]:
    """``without``: why LiteLLM is left out; ``reference``: the interpreter that runs the reference commit. Or ""."""
    cores, notes = servers.cores, []
    pythons = {OURS: sys.executable} | ({REFERENCE: reference} if reference else {})
    upstream = servers.stub("upstream", cores.load)
    targets = [target(servers.stub("direct", cores.servers), "direct", caches=False)]
    proxy = servers.llmproxy(OURS, upstream, fresh("llmproxy.db"))
    ordinary = servers.llmproxy("ordinary", upstream, fresh("ordinary.db"), LLMPROXY_FAST_PATH="false")
    targets.append(target(proxy, OURS))
    targets.append(target(ordinary, ORDINARY, modes=("hit", "stream_hit")))
    if reference:
        then = servers.llmproxy("reference", upstream, fresh("reference.db"), python=reference)
        targets.append(target(then, REFERENCE))
    relay = servers.relay(upstream)
    targets.append(target(relay, RELAY, caches=False, modes=("miss", "stream_miss", "paced", "first")))
    targets.append(target(servers.nginx(upstream), NGINX))
    if not without:
        try:
            targets.append(target(servers.litellm(upstream), LITELLM))
        except NotReady as error:
            without = str(error)
    if without:
        notes.append(f"LiteLLM was not measured: {without.splitlines()[0]}")
        print(notes[-1], file=sys.stderr)
    modes = [] if given.no_compare else given.modes.split(",")
    plan = Plan(targets, modes, rounds=given.rounds, seconds=given.seconds, core=cores.load, upstream=upstream.url)
    results = compare(plan) if modes else Results()
    if modes:
        notes.append(history_note(proxy))
    figures: dict = {}
    for kind in ("plain", "stream"):
        figures[f"crowd_{kind}"] = own.crowd(proxy, upstream, 100, given.rounds, stream=kind == "stream")
    for child in [child for child in servers.children if child.name not in ("upstream", "direct")]:
        servers.stop(child)
    figures["entry"] = own.entry_overhead(1000)
    again = {
        name: lambda python=python: servers.llmproxy("start", upstream, fresh("start.db"), wait=False, python=python)
        for name, python in pythons.items()
    }
    if not without:
        again[LITELLM] = lambda: servers.litellm(upstream, wait=False)
    figures["start"] = {name: own.starts(servers, start, _STARTS[name]) for name, start in again.items()}
    figures["sql"] = own.sql_versions(servers, upstream, pythons, given.rounds, given.seconds)
    figures["phases"] = phases.cost(servers, upstream, fresh("phases.db"), max(5, given.seconds))
    if given.rows:
        figures["rows"] = own.sql_hits(servers, upstream, given.rows, given.rounds, given.seconds)
    if given.lines:
        figures["jobs"] = background(servers, upstream, given.lines)
        figures["jobs"]["rates"] = {
            name: jobs.rate(servers, upstream, fresh("rate.db"), 3_000, python)["rate"]
            for name, python in pythons.items()
        }
    return plan, results, figures, notes


def background(servers: Servers, upstream: Child, lines: int) -> dict:
    """What is measured of background jobs."""
    figures = {
        "rate": jobs.rate(servers, upstream, fresh("rate.db"), 5_000),
        "accepting": jobs.accepting(servers, upstream, fresh("accepting.db"), 200),
        "memory": jobs.memory(servers, upstream, fresh("memory.db"), lines),
    }
    paced = servers.paced("paced")
    figures["beside"] = jobs.beside(servers, paced, fresh("beside.db"), 1_000, 40)
    for path in RUN.glob("memory.*"):
        if path.is_file():
            path.unlink()
    return figures


def fresh(name: str) -> Path:
    for path in RUN.glob(f"{name}*"):
        path.unlink()
    return RUN / name


def history_note(proxy: Child) -> str:
    """What became of the history rows: a flood of hits is faster than any database."""
    with urllib.request.urlopen(proxy.url + "/metrics", timeout=30) as response:
        text = response.read().decode()
    rows = {
        name: float(match[1])
        for name in ("rows", "lost")
        if (match := re.search(rf"^llmproxy_history_{name}_total (\S+)", text, re.M))
    }
    return (
        f"History rows of the comparison: {rows.get('rows', 0):,.0f} written, {rows.get('lost', 0):,.0f} counted as lost, "
        "because requests came faster than rows may be written."
    )


def machine() -> dict[str, str]:
    model = re.search(r"^model name\s*:\s*(.+)$", Path("/proc/cpuinfo").read_text(), re.M)
    load = ", ".join(f"{value:.1f}" for value in os.getloadavg())
    return {
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "processor": model[1] if model else platform.machine(),
        "cores": f"{os.cpu_count()}",
        "system": f"{platform.system()} {platform.release().partition('-')[0]}",
        "load average at the end (1, 5, 15 minutes)": load,
    }


def versions() -> dict[str, str]:
    found = {"Python": platform.python_version()}
    for name in _LIBRARIES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    nginx = shutil.which("nginx", path=os.environ.get("PATH", "") + ":/usr/sbin")
    found["nginx"] = _said([nginx, "-v"]).rpartition("/")[2]
    found["wrk"] = _said(["wrk", "-v"]).partition(" [")[0].removeprefix("wrk ")
    python = RUN / "litellm" / "bin" / "python"
    if python.exists():
        found["LiteLLM"] = _said([python, "-c", "from importlib.metadata import version; print(version('litellm'))"])
    return found


def _said(command: list) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return (done.stdout + done.stderr).strip().splitlines()[0]


if __name__ == "__main__":
    sys.exit(main())
