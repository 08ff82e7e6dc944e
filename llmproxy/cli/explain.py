"""``llmproxy explain``: why a request was a hit or not, from the history of a running proxy."""

from collections.abc import Iterator
from typing import Annotated

import typer
from rich.cells import cell_len

from llmproxy.cli.client import ApiClient, Json, Refused, operator, understanding
from llmproxy.cli.format import NOTHING, aligned, print_json, printable
from llmproxy.cli.options import CommandFailed, JsonFlag, UrlFlag
from llmproxy.observe.access_log import duration
from llmproxy.wire.vocabulary import CacheStatus

#: characters of a line of text, and of what is cut out of it
_LINE, _SPAN = 100, 60
_FIELD = 72

NOT_FOUND = 404

app = typer.Typer(add_completion=False, rich_markup_mode=None)


@app.command()
def explain(
    request_id: Annotated[
        str | None,
        typer.Argument(
            metavar="[REQUEST_ID]",
            help="As in the header X-Request-Id, or the end of it, as in the log; without one, the last miss.",
            show_default=False,
        ),
    ] = None,
    url: UrlFlag = None,
    as_json: JsonFlag = False,
) -> None:
    """Say why a request was answered from the cache, or why not.

    Shows what its key was made of, the earlier request that is most like it, and the characters in which the two
    differ. The admin token, if the proxy needs one, is read from LLMPROXY_ADMIN_TOKEN or llmproxy.toml.
    """
    client = operator(url)
    document = _last_miss(client) if request_id is None else _found(client, request_id)
    if as_json:
        print_json(document)
        return
    for line in lines(document):
        typer.echo(line)


def _last_miss(client: ApiClient) -> Json:
    """Raises ``CommandFailed`` if there is none."""
    with understanding():
        rows = client.history({"cache": CacheStatus.MISS, "limit": "1"})["data"]
        if not rows:
            raise CommandFailed("the history has no miss: there is nothing to explain")
        return client.explain(rows[0]["request_id"])


def _found(client: ApiClient, request_id: str) -> Json:
    """The explanation of the request with this id, else of the newest with an id that ends like this."""
    try:
        return client.explain(request_id)
    except Refused as error:
        if error.status != NOT_FOUND:
            raise
        with understanding():
            recent = [row["request_id"] for row in client.history({"limit": "1000"})["data"]]
        whole = next((id for id in recent if id.endswith(request_id)), None)
        if whole is None:
            raise
        return client.explain(whole)


def lines(document: Json) -> Iterator[str]:
    """The explanation for people. Raises ``CommandFailed`` for another kind of document."""
    with understanding():
        yield _head(document)
        for sentence in document["because"]:
            yield f"  {printable(sentence, 400)}"
        yield ""
        yield from _key(document["key"])
        if document["nearest"] is not None:
            yield ""
            yield _nearest(document)
        for difference in document["differences"]:
            yield ""
            yield from _difference(difference)


def _head(document: Json) -> str:
    word = document["cache"].upper() or f"status {document['status']}"
    return (
        f"{printable(document['request_id'], 100)}: {word} ({document['endpoint']}, {printable(document['model'], 60)})"
    )


def _key(key: Json) -> Iterator[str]:
    rows = [["key", key["digest"] or NOTHING]]
    rows += [[name, key[name] or NOTHING] for name in ("endpoint", "model", "identity", "scope", "namespace")]
    rows += [[f"field {name}", value] for name, value in key["fields"].items()]
    rows += [[f"not in it: {name}", excused["why"]] for name, excused in key["excused"].items()]
    yield from aligned([[printable(name, 40), printable(value, _FIELD)] for name, value in rows], left=2)


def _nearest(document: Json) -> str:
    nearest = document["nearest"]
    earlier = duration(max(0.0, document["created_at"] - nearest["created_at"]))
    compared = f"{document['compared']:,} earlier {'one' if document['compared'] == 1 else 'ones'}"
    return (
        f"most like it, of {compared}: {printable(nearest['request_id'], 100)}, "
        f"{earlier} before, {nearest['similarity']:.1%} the same"
    )


def _difference(difference: Json) -> Iterator[str]:
    note = f": {difference['note']}" if difference["note"] else ""
    yield f"{printable(difference['path'] or 'the body', 80)} ({difference['kind']}){note}"
    for span in difference.get("spans", ()):
        yield from _marked("this", span["before"], span["ours"], span["after"])
        yield from _marked("that", span["before"], span["theirs"], span["after"])
    for name, label in (("ours", "this"), ("theirs", "that")):
        if name in difference:
            yield f"  {label}: {printable(difference[name], _LINE)}"


def _marked(name: str, before: str, differing: str, after: str) -> Iterator[str]:
    """A line of text, and below it a mark under each character that differs; ``|`` for one that is missing."""
    head, middle, tail = (_visible(part) for part in (before, differing, after))
    middle = middle if len(middle) <= _SPAN else f"{middle[: _SPAN - 1]}…"
    yield f"  {name}: {head}{middle}{tail}"
    yield " " * cell_len(f"  {name}: {head}") + ("^" * cell_len(middle) or "|")


def _visible(text: str) -> str:
    """With what cannot be seen made visible: white space but plain spaces, control characters."""
    symbols = {"\n": "↵", "\t": "→", "\r": "␍", "\u00a0": "⍽"}
    return "".join(symbols.get(each, each if each.isprintable() else "\ufffd") for each in text)
