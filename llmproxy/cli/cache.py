"""``llmproxy cache``: the cache of a running proxy, through its API."""

import re
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Annotated, Any

import typer

from llmproxy.cli.client import operator, understanding
from llmproxy.cli.format import NOTHING, print_json, table
from llmproxy.cli.options import CommandFailed, JsonFlag, UrlFlag
from llmproxy.observe.access_log import duration

_UNITS = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86_400}
#: 90s, 15m, 24h, 7d
AGE = re.compile(r"(\d+(?:\.\d+)?)([smhd]?)")

app = typer.Typer(no_args_is_help=True, add_completion=False, rich_markup_mode=None)


@app.callback()
def cache() -> None:
    """Inspect and flush the cache of a running proxy.

    The admin token, if the proxy needs one, is read from LLMPROXY_ADMIN_TOKEN or llmproxy.toml.
    """


@app.command()
def stats(url: UrlFlag = None, as_json: JsonFlag = False) -> None:
    """Print what the cache holds and what it saved."""
    document = operator(url).stats()
    if as_json:
        print_json(document)
        return
    for line in lines(document):
        typer.echo(line)


@app.command()
def show(
    key: Annotated[
        str, typer.Argument(metavar="KEY", help="An entry's key as in Cache-Status, or enough of its beginning.")
    ],
    url: UrlFlag = None,
) -> None:
    """Print one entry as JSON."""
    print_json(operator(url).entry(key))


@app.command()
def flush(
    key: Annotated[str | None, typer.Option(metavar="KEY", help="The entry with this key.")] = None,
    prefix: Annotated[str | None, typer.Option(metavar="HEX", help="Entries whose key begins like this.")] = None,
    model: Annotated[str | None, typer.Option(metavar="NAME", help="Entries of this model.")] = None,
    namespace: Annotated[str | None, typer.Option(metavar="NAME", help="Entries of this namespace.")] = None,
    tag: Annotated[
        list[str] | None,
        typer.Option(metavar="TAG", help="Entries with this tag; repeat it for any of several."),
    ] = None,
    endpoint: Annotated[
        str | None, typer.Option(metavar="NAME", help="Entries of this endpoint, as the metrics name it.")
    ] = None,
    older_than: Annotated[
        str | None, typer.Option(metavar="AGE", help="Entries older than this: 90s, 15m, 24h, 7d.")
    ] = None,
    every: Annotated[bool, typer.Option("--all", help="Every entry.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say how many it would be.")] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask before --all.")] = False,
    url: UrlFlag = None,
) -> None:
    """Remove entries from every tier, in every process.

    Several selectors mean the entries that match them all.
    """
    selector = _given(
        key=key,
        prefix=prefix,
        model=model,
        namespace=namespace,
        tags=tag or None,
        endpoint=endpoint,
        older_than=None if older_than is None else seconds(older_than),
    )
    if every == bool(selector):
        raise typer.BadParameter("say which entries: one or more selectors, or --all alone")
    if every:
        selector = {"all": True}
    client = operator(url)
    if every and not yes and not dry_run:
        found = client.flush({**selector, "dry_run": True})
        counted = _count(found)
        if int(found["flushed"]):
            _confirm(f"Remove {counted}?")
    done = client.flush({**selector, "dry_run": dry_run})
    typer.echo(f"{'would remove' if dry_run else 'removed'} {_count(done)}")


def seconds(age: str) -> float:
    """An age such as ``90``, ``15m``, ``24h`` or ``7d`` in seconds."""
    match = AGE.fullmatch(age.strip())
    if match is None:
        raise typer.BadParameter(f"{age!r} is no age; write it like 90s, 15m, 24h or 7d")
    return float(match[1]) * _UNITS[match[2]]


def _confirm(question: str) -> None:
    """Raises ``typer.Abort`` for no, and if nobody can answer."""
    try:
        sure = typer.confirm(question, err=True)
    except typer.Abort:
        # the cursor is still behind the question
        typer.echo(err=True)
        raise
    if not sure:
        raise typer.Abort


def _given(**selector: object) -> dict[str, object]:
    return {name: value for name, value in selector.items() if value is not None}


def _count(answer: dict[str, Any]) -> str:
    try:
        entries, size = int(answer["flushed"]), int(answer["bytes"])
    except (KeyError, TypeError, ValueError) as error:
        raise CommandFailed(f"the proxy's answer is not understood: {answer}") from error
    return f"{entries:,} {'entry' if entries == 1 else 'entries'} ({size:,} bytes)"


#: name in the document -> name in the table
_WINDOWS = {"since_start": "since start", "last_5_minutes": "last 5 minutes", "last_60_minutes": "last 60 minutes"}
_COUNTS = {"hits": "hits", "misses": "misses", "joins": "joined", "stale": "stale", "bypasses": "bypassed"}


def lines(document: dict[str, Any]) -> Iterator[str]:
    """What became of the requests, what that saved, and the tiers. Raises ``CommandFailed`` for another document."""
    with understanding():
        yield from table(["requests", *_COUNTS.values(), "hit rate"], _requests(document))
        yield ""
        yield _saved(document["saved"])
        yield ""
        yield from table(["tier", "entries", "MB", "hits", "evictions", "oldest entry"], _tiers(document["tiers"]))
        yield from _beside_the_tiers(document)


def _requests(document: dict[str, Any]) -> Iterator[list[str]]:
    for name, label in _WINDOWS.items():
        window = document[name]
        rate = window["hit_rate"]
        yield [
            label,
            *(f"{window[count]:,}" for count in _COUNTS),
            NOTHING if rate is None else f"{rate:.1%}",
        ]


def _saved(saved: dict[str, Any]) -> str:
    return (
        f"saved: {duration(saved['upstream_seconds'])} of generation, {saved['prompt_tokens']:,} prompt tokens, "
        f"{saved['completion_tokens']:,} completion tokens"
    )


def _tiers(tiers: dict[str, Any]) -> Iterator[list[str]]:
    for name, tier in tiers.items():
        oldest = tier["oldest"]
        yield [
            name,
            f"{tier['entries']:,}",
            f"{tier['bytes'] / 1e6:,.2f}",
            f"{tier['hits']:,}",
            f"{sum(tier['evictions'].values()):,}",
            NOTHING if oldest is None else f"{datetime.fromtimestamp(oldest, UTC):%Y-%m-%d %H:%M} UTC",
        ]


def _beside_the_tiers(document: dict[str, Any]) -> Iterator[str]:
    """A hit of embeddings comes from an entry for each of its texts, of any tier: it counts for none of them."""
    hits = document["since_start"]["hits"] - sum(tier["hits"] for tier in document["tiers"].values())
    if hits > 0:
        more = "more hit" if hits == 1 else "more hits"
        yield f"embeddings: {hits:,} {more}, each from the entries of its texts; the tiers do not count them"
