"""``llmproxy status``: how a running proxy fares, on one screen, through its API."""

from collections.abc import Iterator

import typer

from llmproxy.cli.client import Json, operator, understanding
from llmproxy.cli.format import NOTHING, print_json, printable, table
from llmproxy.cli.options import CommandFailed, JsonFlag, UrlFlag
from llmproxy.observe.access_log import duration

#: window of the API -> what it is called
_WINDOWS = {"5m": "last 5 minutes", "1h": "last hour", "24h": "last 24 hours"}
#: of names and errors
_NAME, _ERROR = 40, 60

app = typer.Typer(add_completion=False, rich_markup_mode=None)


@app.command()
def status(url: UrlFlag = None, as_json: JsonFlag = False) -> None:
    """Show the state of a running proxy, on one screen.

    Model servers, database, cache and jobs with their states, rates and times, and what was saved. The exit code is 1
    if no model server answers. The admin token, if the proxy needs one, is read from LLMPROXY_ADMIN_TOKEN or
    llmproxy.toml.
    """
    client = operator(url)
    document = {
        "health": client.state(),
        "performance": {window: client.performance(window) for window in _WINDOWS},
        "cache": client.stats(),
    }
    if as_json:
        print_json(document)
    else:
        with understanding():
            for line in lines(client.url, document):
                typer.echo(line)
    if document["health"].get("status") == "down":
        raise CommandFailed("no model server answers: what is not in the cache cannot be answered")


def lines(url: str, document: Json) -> Iterator[str]:
    """The screen. Raises what ``understanding`` translates."""
    health = document["health"]
    yield f"llmproxy {printable(health['version'], _NAME)} at {url}: {printable(health['status'], _NAME)}"
    yield ""
    servers = [[*_server(each)] for each in health["upstreams"]]
    yield from table(["model server", "kind", "state", "last error", "answers in", "in work"], servers, left=4)
    if not servers:
        yield "none was found yet"
    yield ""
    yield from table(["part", "state", "last error", "holds"], _parts(health), left=4)
    yield ""
    windows = [_window(label, document["performance"][name]["total"]) for name, label in _WINDOWS.items()]
    yield from table(["requests", "number", "hit rate", "errors", "P50", "P95", "tokens", "saved"], windows)


def _server(server: Json) -> Iterator[str]:
    yield printable(server["name"], _NAME)
    yield server["kind"]
    yield server["state"]
    yield _error(server)
    yield duration(server["latency_seconds"])
    yield f"{server['in_flight']:,}"


def _parts(health: Json) -> Iterator[list[str]]:
    database, queue = health["database"], health["queue"]
    size = _megabytes(database["bytes"]) if "bytes" in database else NOTHING
    yield ["database", database["state"], _error(database), f"{printable(database['kind'], _NAME)}, {size}"]
    for name, tier in health["cache"].items():
        held = f"{tier['entries']:,} {'entry' if tier['entries'] == 1 else 'entries'}, {_megabytes(tier['bytes'])}"
        yield [f"{name} tier", tier["state"], _error(tier), held]
    work = f"{queue['waiting']:,} waiting, {queue['running']:,} in work" if "waiting" in queue else NOTHING
    yield ["jobs", queue["state"], _error(queue), work]


def _window(label: str, total: Json) -> list[str]:
    times, saved = total["duration_seconds"] or {}, total["saved"]
    return [
        label,
        f"{total['requests']:,}",
        _share(total["hit_rate"]),
        _share(total["error_rate"]),
        duration(times.get("p50")),
        duration(times.get("p95")),
        f"{total['prompt_tokens'] + total['completion_tokens']:,}",
        duration(saved["upstream_seconds"]),
    ]


def _error(part: Json) -> str:
    # of a part that works again the last error would look like one that it has
    error = None if part["state"] == "ok" else part["last_error"]
    return printable(str(error or part.get("warning") or NOTHING), _ERROR)


def _share(share: float | None) -> str:
    return NOTHING if share is None else f"{share:.1%}"


def _megabytes(size: float) -> str:
    return f"{size / 1e6:,.2f} MB"
