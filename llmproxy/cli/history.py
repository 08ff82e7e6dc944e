"""``llmproxy history`` and ``llmproxy tail``: the requests of a running proxy, in the columns of its own log."""

import json
import sys
import time
from collections.abc import Iterator, Mapping
from typing import Annotated, Any

import typer

from llmproxy.cli.cache import AGE, seconds
from llmproxy.cli.client import ApiClient, Json, Unreachable, operator, understanding
from llmproxy.cli.format import has_colours, print_json
from llmproxy.cli.options import JsonFlag, UrlFlag
from llmproxy.observe.bottom_line import columns_of
from llmproxy.observe.text_log import TextFormatter
from llmproxy.wire.exchange import Caller, Exchange, Usage
from llmproxy.wire.vocabulary import CacheStatus, Reason

#: how often ``tail`` asks, and how many requests it asks for
_TAIL_SECONDS, _TAIL_ROWS = 1.0, 100
#: what takes so long may have begun before that many others
_LONG_SECONDS = 5

history_app = typer.Typer(add_completion=False, rich_markup_mode=None)
tail_app = typer.Typer(add_completion=False, rich_markup_mode=None)

UserFlag = Annotated[str | None, typer.Option("--user", metavar="NAME", help="Only this user's.")]
SessionFlag = Annotated[str | None, typer.Option("--session", metavar="NAME", help="Only this session's.")]
ModelFlag = Annotated[str | None, typer.Option("--model", metavar="NAME", help="Only those for this model.")]
EndpointFlag = Annotated[
    str | None, typer.Option("--endpoint", metavar="NAME", help="Only those of this endpoint: chat, embeddings, ...")
]
CacheFlag = Annotated[
    str | None, typer.Option("--cache", metavar="OUTCOME", help=f"Only these: {', '.join(CacheStatus)}.")
]
StatusFlag = Annotated[
    str | None, typer.Option("--status", metavar="N", help="Only those with this status; error for all that failed.")
]
SearchFlag = Annotated[
    str | None, typer.Option("--search", "-q", metavar="WORDS", help="Only those with these words in them.")
]


@history_app.command("history")
def list_requests(
    user: UserFlag = None,
    session: SessionFlag = None,
    model: ModelFlag = None,
    endpoint: EndpointFlag = None,
    cache: CacheFlag = None,
    status: StatusFlag = None,
    search: SearchFlag = None,
    since: Annotated[
        str | None, typer.Option(metavar="TIME", help="From then on: an age like 15m, 24h, 7d, or ISO 8601.")
    ] = None,
    until: Annotated[str | None, typer.Option(metavar="TIME", help="Up to then.")] = None,
    slow: Annotated[bool, typer.Option("--slow", help="The slowest first, not the newest.")] = False,
    limit: Annotated[int, typer.Option("--limit", "-n", metavar="N", help="How many at most.", min=1, max=1000)] = 20,
    url: UrlFlag = None,
    as_json: JsonFlag = False,
) -> None:
    """List requests, the newest first.

    The id is the end of the whole one, and enough for `llmproxy explain`. The admin token, if the proxy needs
    one, is read from LLMPROXY_ADMIN_TOKEN or llmproxy.toml.
    """
    query = _query(user, session, model, endpoint, cache, status, search)
    times = {"since": _time(since), "until": _time(until), "order": "slowest" if slow else None}
    query |= {name: value for name, value in times.items() if value is not None}
    page = operator(url).history(query | {"limit": str(limit), "preview": "true"})
    if as_json:
        print_json(page)
        return
    with understanding():
        rows = page["data"]
        form = _form(dated=True)
        typer.echo(form.head() if rows else "no requests")
        for row in rows:
            typer.echo(form.request(_exchange(row)), nl=False)
        if not slow and page["next"]:
            typer.echo(f"there are more: --limit {min(2 * limit, 1000)}, or --until {_earliest(rows)}")


@tail_app.command("tail")
def follow(
    user: UserFlag = None,
    session: SessionFlag = None,
    model: ModelFlag = None,
    endpoint: EndpointFlag = None,
    cache: CacheFlag = None,
    status: StatusFlag = None,
    search: SearchFlag = None,
    lines: Annotated[
        int, typer.Option("--lines", "-n", metavar="N", help="How many earlier ones.", min=0, max=50)
    ] = 10,
    url: UrlFlag = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print each as a line of JSON.")] = False,
) -> None:
    """Show requests as they end, until Ctrl-C.

    It continues after a restart of the proxy. The admin token, if the proxy needs one, is read from
    LLMPROXY_ADMIN_TOKEN or llmproxy.toml.
    """
    following = Following(operator(url), _query(user, session, model, endpoint, cache, status, search))
    form = _form(dated=False)
    if not as_json:
        typer.echo(form.head())
    with understanding():
        for row in following.rows(lines):
            # each at once, also into a pipe
            print(json.dumps(row) if as_json else form.request(_exchange(row)).rstrip("\n"), flush=True)


class Following:
    """The requests of a proxy that match a query, as they end."""

    def __init__(self, client: ApiClient, query: Mapping[str, str]) -> None:
        self._client = client
        self._query = dict(query)
        #: the highest number that was given out
        self._last = 0

    def rows(self, earlier: int) -> Iterator[Json]:
        """The last ``earlier`` that have ended, then the others for ever. Raises ``CommandFailed`` if the proxy cannot
        be reached at first, or refuses."""
        found = self._found(self._page())
        yield from found[len(found) - min(earlier, len(found)) :]
        is_away = False
        while True:
            time.sleep(_TAIL_SECONDS)
            try:
                rows = self._page() + self._page(min_seconds=str(_LONG_SECONDS))
            except Unreachable as error:
                if not is_away:
                    typer.echo(f"{error} It is tried again.", err=True)
                is_away = True
                continue
            is_away = False
            yield from self._found(rows)

    def _page(self, **more: str) -> list[Json]:
        asked = {"limit": str(_TAIL_ROWS), "preview": "true"}
        rows: list[Json] = self._client.history(self._query | asked | more)["data"]
        return rows

    def _found(self, rows: list[Json]) -> list[Json]:
        """Those that were not given out yet, in the order of their ends."""
        fresh = {row["id"]: row for row in rows if row["id"] > self._last}
        self._last = max(fresh, default=self._last)
        return [fresh[id] for id in sorted(fresh)]


def _query(
    user: str | None,
    session: str | None,
    model: str | None,
    endpoint: str | None,
    cache: str | None,
    status: str | None,
    search: str | None,
) -> dict[str, str]:
    given = {
        "user_id": user,
        "session_id": session,
        "model": model,
        "endpoint": endpoint,
        "cache": cache,
        "status": status,
        "q": search,
    }
    return {name: value for name, value in given.items() if value is not None}


def _time(text: str | None) -> str | None:
    """A time as the API takes it: an age is counted back from now."""
    return str(time.time() - seconds(text)) if text is not None and AGE.fullmatch(text.strip()) else text


def _earliest(rows: list[Json]) -> str:
    return f"{min((row['created_at'] for row in rows), default=0.0):.3f}"


def _form(*, dated: bool) -> TextFormatter:
    return TextFormatter(
        colour=has_colours(),
        question=lambda exchange: exchange.request_body.decode(),
        columns=lambda: columns_of(sys.stdout),
        dated=dated,
    )


def _exchange(row: Json) -> Exchange:
    """A row of the history as the log has it; the body is the preview of the question."""
    first: float | None = row["first_token_seconds"]
    return Exchange(
        request_id=row["request_id"],
        method=row["method"],
        path=row["path"],
        started=0.0,
        started_at=row["created_at"],
        caller=Caller(row["caller"]),
        endpoint=row["endpoint"],
        model=row["model"],
        user=row["user"],
        cache=_member(CacheStatus, row["cache"]),
        reason=_member(Reason, row["reason"]),
        status=row["status"],
        usage=Usage(row["prompt_tokens"], row["completion_tokens"]),
        first_byte=first,
        finished=row["total_seconds"],
        request_body=row.get("preview", "").encode(),
        error=row["error"],
    )


def _member(kind: Any, value: str) -> Any:
    """The member with a value, None for one that this version does not know."""
    return kind(value) if value in set(kind) else None
