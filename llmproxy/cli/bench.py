"""``llmproxy bench``: how quick a running proxy and the model behind it are, in a minute. locust does the rest."""

import asyncio
import itertools
import random
import secrets
from collections.abc import Callable, Coroutine, Iterable, Iterator
from dataclasses import dataclass, field
from time import perf_counter
from typing import Annotated, Any

import httpx
import typer
from rich.console import Console

from llmproxy.cli.client import Json, Refused, authorization, base, document, http_client, reaching
from llmproxy.cli.format import NOTHING, aligned, print_json, printable, table
from llmproxy.cli.options import ApiKeyFlag, CommandFailed, JsonFlag, UrlFlag
from llmproxy.observe.access_log import duration
from llmproxy.observe.quantiles import Distribution

MAX_TOKENS = 32
#: a stage ends with so many errors
MOST_ERRORS = 10

#: a large model may be read from the disk first
_TIMEOUT = 300.0
#: of a list of models, so many are tried, and each so often: one that fails now and then is worth measuring
_MOST_TRIED, _TRIES = 8, 3
_MOST_AT_ONCE = 16
#: popular questions, and how many callers ask them at once; new ones have higher numbers
_POPULAR, _POPULAR_CALLERS = 20, 4
#: what ``X-Cache`` says, in the order of a table's rows
_ORDER = ("miss", "joined", "hit", "stale", "bypass")

app = typer.Typer(add_completion=False, rich_markup_mode=None)


@app.command()
def bench(
    url: UrlFlag = None,
    model: Annotated[
        str | None, typer.Option("--model", metavar="NAME", help="The model to ask [the first that answers].")
    ] = None,
    seconds: Annotated[
        float,
        typer.Option("--seconds", metavar="N", min=1, show_default=False, help="How long the whole takes, about [60]."),
    ] = 60.0,
    api_key: ApiKeyFlag = None,
    as_json: JsonFlag = False,
) -> None:
    """Measure a running proxy and the model behind it.

    It asks short questions: the same twice, from 1, 4 and 16 callers at once, and popular ones. They have a cache
    namespace of their own and expire after ten minutes. Requests that have begun are finished, so a slow model takes
    longer than that. The exit code is 1 if a stage had no answer at all.
    """
    where, console = base(url), Console(stderr=True, highlight=False)
    console.print("looking for a model", markup=False)
    chosen = answering_model(where, api_key, model)
    stages = asyncio.run(measure(where, api_key, chosen, seconds, lambda name: console.print(name, markup=False)))
    if as_json:
        found = {figures.name: figures.document() for figures in stages}
        print_json({"url": where, "model": chosen, "stages": found, "hits": hits(stages)})
    else:
        for line in lines(where, chosen, stages):
            typer.echo(line)
    silent = [figures for figures in stages if not figures.answers]
    if silent:
        raise CommandFailed(f"no answer at all in {', '.join(each.name for each in silent)}; {silent[0].reason}")


def question(number: int) -> str:
    """The question with this number: always the same text."""
    return f"In one sentence, what is the number {number} good for?"


def chat(model: str, number: int, max_tokens: int, **more: Any) -> Json:
    """The body of a chat completion. Its temperature is 0, so that every policy but ``opt-in`` and ``off`` keeps it."""
    messages = [{"role": "user", "content": question(number)}]
    return {"model": model, "messages": messages, "max_tokens": max_tokens, "temperature": 0, **more}


class Popular:
    """Numbers below ``count``, as what people ask for is spread (Zipf): the k-th comes 1/k as often as the first."""

    def __init__(self, count: int, chance: random.Random) -> None:
        self._numbers = range(count)
        self._weights = list(itertools.accumulate(1 / rank for rank in range(1, count + 1)))
        self._chance = chance

    def pick(self) -> int:
        return self._chance.choices(self._numbers, cum_weights=self._weights)[0]


def own_cache(name: str, key: str | None) -> dict[str, str]:
    """Headers that give a run a cache of its own for ten minutes, and its name as the user's in the history."""
    own = {
        "x-llmproxy-namespace": f"{name}-{secrets.token_hex(6)}",
        "x-llmproxy-ttl": "600",
        "x-llmproxy-tags": name,
        "x-llmproxy-user": name,
    }
    return own | authorization(key)


def answering_model(url: str, key: str | None, model: str | None) -> str:
    """``model``, or the first of the proxy's list, once it has answered. Raises ``CommandFailed``."""
    with http_client(url, key, _TIMEOUT) as http, reaching(url):
        if "version" not in document(http.get("/health")):
            raise CommandFailed(f"{url} answers, but not as llmproxy would")
        return first_that_answers(http, [model] if model else listed_models(http))


def listed_models(http: httpx.Client) -> list[str]:
    """The names of all models. Raises ``CommandFailed`` without one."""
    names = [str(each["id"]) for each in document(http.get("/v1/models")).get("data", ())]
    if not names:
        raise CommandFailed("the proxy knows no model; is the model server running?")
    return names


def first_that_answers(http: httpx.Client, names: Iterable[str]) -> str:
    """The first that answers a chat completion. Raises ``CommandFailed`` with the last error."""
    refused: Refused | None = None
    for name in list(names)[:_MOST_TRIED] * _TRIES:
        try:
            uncached = {"cache-control": "no-store"}
            document(http.post("/v1/chat/completions", json=chat(name, 0, 1), headers=uncached))
        except Refused as error:
            refused = error
        else:
            return name
    raise CommandFailed(f"no model answers a chat completion; {refused}")


@dataclass
class Figures:
    """A stage's. ``seconds`` is how long it took as a whole, ``reason`` what its first error was."""

    name: str
    seconds: float = 0.0
    answers: int = 0
    errors: int = 0
    reason: str = ""
    #: what the cache did -> seconds of the answers
    times: dict[str, Distribution] = field(default_factory=dict)

    def add(self, seconds: float, cache: str, error: str) -> None:
        """Adds an answer; ``cache`` is ``X-Cache`` in lower case, ``error`` is "" for a success."""
        if error:
            self.errors += 1
            self.reason = self.reason or error
        else:
            self.answers += 1
            self.times.setdefault(cache, Distribution()).add(seconds)

    @property
    def hopeless(self) -> bool:
        """Whether so much went wrong that the rest will, too."""
        return self.errors >= MOST_ERRORS

    @property
    def rate(self) -> float:
        """Answers per second."""
        return self.answers / self.seconds if self.seconds else 0.0

    def document(self) -> dict[str, Any]:
        """JSON-ready; times in seconds."""
        return {
            "seconds": round(self.seconds, 3),
            "answers": self.answers,
            "errors": self.errors,
            "first_error": self.reason or None,
            "per_second": round(self.rate, 3),
            "times": {cache: times.summary() for cache, times in sorted(self.times.items())},
        }


class Run:
    """What the stages share: the client, the model, and the numbers of new questions."""

    def __init__(self, http: httpx.AsyncClient, model: str) -> None:
        self._http = http
        self._model = model
        self.fresh = itertools.count(_POPULAR)

    async def ask(self, figures: Figures, number: int) -> None:
        """A question, answered while the caller waits. Raises nothing for an error, or for no answer."""
        began = perf_counter()
        try:
            answer = await self._http.post("/v1/chat/completions", json=chat(self._model, number, MAX_TOKENS))
            cache = answer.headers.get("x-cache", "").lower()
            document(answer)
        except (httpx.HTTPError, CommandFailed) as error:
            figures.add(perf_counter() - began, "", printable(str(error) or type(error).__name__, 200))
        else:
            figures.add(perf_counter() - began, cache, "")


Stage = Callable[[Run, Figures, float], Coroutine[Any, Any, None]]


async def _twice(run: Run, figures: Figures, until: float) -> None:
    """Question after question, each of them twice: what a generation takes, and what its repeat does."""
    while True:
        number = next(run.fresh)
        for _ in range(2):
            await run.ask(figures, number)
        if figures.hopeless or perf_counter() >= until:
            return


def _at_once(callers: int, pick: Callable[[Run], int]) -> Stage:
    """A stage with this number of callers at once."""

    async def stage(run: Run, figures: Figures, until: float) -> None:
        async def caller() -> None:
            while True:
                await run.ask(figures, pick(run))
                if figures.hopeless or perf_counter() >= until:
                    return

        async with asyncio.TaskGroup() as group:
            for _ in range(callers):
                group.create_task(caller())

    return stage


def _new(run: Run) -> int:
    return next(run.fresh)


def stages() -> dict[str, tuple[float, Stage]]:
    """Name -> the stage's share of the time, and what it does."""
    popular = Popular(_POPULAR, random.Random(0))
    return {
        "the same twice": (0.2, _twice),
        "1 at a time": (0.2, _at_once(1, _new)),
        "4 at once": (0.2, _at_once(4, _new)),
        "16 at once": (0.2, _at_once(_MOST_AT_ONCE, _new)),
        "popular": (0.2, _at_once(_POPULAR_CALLERS, lambda run: popular.pick())),
    }


async def measure(
    url: str, key: str | None, model: str, seconds: float, on_stage: Callable[[str], None] = lambda name: None
) -> list[Figures]:
    """The figures of every stage, after about ``seconds``. ``on_stage`` gets the name of the stage that begins."""
    limits = httpx.Limits(max_connections=_MOST_AT_ONCE, max_keepalive_connections=_MOST_AT_ONCE)
    headers = own_cache("bench", key)
    client = httpx.AsyncClient(base_url=url, headers=headers, timeout=_TIMEOUT, limits=limits, trust_env=False)
    found = []
    async with client as http:
        run = Run(http, model)
        for name, (share, stage) in stages().items():
            on_stage(name)
            figures, began = Figures(name), perf_counter()
            await stage(run, figures, began + share * seconds)
            figures.seconds = perf_counter() - began
            found.append(figures)
    return found


def hits(found: list[Figures]) -> dict[str, float | None]:
    """``quicker``: by which share the median of the hits is below that of the misses, of questions asked twice
    in a row; ``rate``: the share of the popular questions that were hits."""
    medians = {cache: times.quantile(0.5) for cache, times in found[0].times.items()}
    hit, miss, popular = medians.get("hit"), medians.get("miss"), found[-1]
    counted = popular.times["hit"].count if "hit" in popular.times else 0
    return {
        "quicker": None if hit is None or not miss else 1 - hit / miss,
        "rate": counted / popular.answers if popular.answers else None,
    }


def lines(url: str, model: str, found: list[Figures]) -> Iterator[str]:
    """The table, and what it amounts to."""
    yield f"{url}, model {model}"
    yield ""
    rows = [row for figures in found for row in _rows(figures)]
    yield from table(["stage", "", "answers", "per second", "P50", "P95", "P99", "errors"], rows, left=2)
    yield ""
    shares = {name: NOTHING if share is None else f"{share:.1%}" for name, share in hits(found).items()}
    yield from aligned(
        [["hits are quicker by", shares["quicker"]], ["hit rate of the popular questions", shares["rate"]]], left=2
    )
    for figures in found:
        if figures.reason:
            yield f"{figures.name}: the first error was: {figures.reason}"


def _rows(figures: Figures) -> Iterator[list[str]]:
    words = sorted(figures.times, key=lambda word: _ORDER.index(word) if word in _ORDER else len(_ORDER))
    for number, word in enumerate(words or [""]):
        times, first = figures.times.get(word), number == 0
        yield [
            figures.name if first else "",
            word,
            f"{times.count if times else 0:,}",
            f"{figures.rate:,.1f}" if first else "",
            *(duration(times.quantile(share) if times else None) for share in (0.5, 0.95, 0.99)),
            f"{figures.errors:,}" if first else "",
        ]
