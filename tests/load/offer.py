"""What a running proxy has to offer: found out before anything is measured, which also has the models loaded."""

from collections.abc import Iterable
from dataclasses import dataclass

import httpx

from llmproxy.cli.bench import first_that_answers, listed_models
from llmproxy.cli.client import Json, Refused, document, reaching
from llmproxy.cli.options import CommandFailed

#: a large model may be read from the disk first
_TIMEOUT = 300.0
#: of a list of models, so many are tried
_MOST_TRIED = 8


@dataclass(frozen=True)
class Offer:
    """``embedding`` is "" where no model makes embeddings, ``jobs`` whether there are background jobs."""

    model: str
    embedding: str = ""
    jobs: bool = True


def look(url: str, key: str | None, model: str | None = None, *, embedding: bool = False) -> Offer:
    """Asks the proxy at ``url``. ``model`` is the one to take, else the first of its list that answers; ``embedding``
    says whether one for embeddings is looked for, too. Raises ``CommandFailed``."""
    headers = {"authorization": f"Bearer {key}"} if key else {}
    # the proxy is on this machine or named in full: a system-wide HTTP proxy has no say
    with httpx.Client(base_url=url, headers=headers, timeout=_TIMEOUT, trust_env=False) as http, reaching(url):
        if "version" not in document(http.get("/health")):
            raise CommandFailed(f"{url} answers, but not as llmproxy would")
        names = [model] if model else listed_models(http)
        return Offer(
            model=first_that_answers(http, names),
            embedding=_embedding(http, names) if embedding else "",
            jobs=_has_jobs(http),
        )


def _embedding(http: httpx.Client, names: Iterable[str]) -> str:
    """The first that makes embeddings; those that are named after it are tried first."""
    for name in sorted(names, key=lambda name: "embed" not in name.lower())[:_MOST_TRIED]:
        try:
            _try(http, "/v1/embeddings", {"model": name, "input": "x"})
        except Refused:
            continue
        return name
    return ""


def _has_jobs(http: httpx.Client) -> bool:
    try:
        return "data" in document(http.get("/api/tasks?limit=1"))
    except CommandFailed:
        # without jobs the path is the model server's, and it says what it likes
        return False


def _try(http: httpx.Client, path: str, body: Json) -> None:
    document(http.post(path, json=body, headers={"cache-control": "no-store"}))
