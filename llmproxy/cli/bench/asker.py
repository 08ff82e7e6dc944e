"""The requests that are measured, on their way through one HTTP client."""

import asyncio
import json
import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from time import perf_counter

import httpx

from llmproxy.cli.bench.figures import Timed
from llmproxy.cli.bench.offer import Offer
from llmproxy.cli.bench.questions import chat, question
from llmproxy.cli.client import Json
from llmproxy.cli.columns import printable
from llmproxy.jobs.states import JobStatus

MAX_TOKENS = 32

_TIMEOUT = 300.0
#: seconds that the cancelling of a task may take
_CANCELLING = 5.0
#: between two looks at a task, in seconds: soon at first
_FIRST_PAUSE, _LONGEST_PAUSE, _GROWTH = 0.02, 0.5, 1.3
#: of an error's message
_LONGEST = 200


@dataclass(frozen=True, slots=True)
class Task:
    """A task that is over: ``took`` in seconds, from the moment it was accepted, by the proxy's clock."""

    took: float
    completed: int
    #: "" where every prompt was answered
    error: str


class Asker:
    """Asks ``offer.model``. No method raises for an answer that is an error, or for none."""

    def __init__(self, http: httpx.AsyncClient, offer: Offer) -> None:
        self._http = http
        self._model = offer.model

    async def chat(self, number: int) -> Timed:
        """A question, answered while the caller waits."""
        timed, _ = await self._post("/v1/chat/completions", chat(self._model, number, MAX_TOKENS))
        return timed

    async def accepted(self, numbers: list[int]) -> tuple[Timed, str]:
        """Questions for later: how long their acceptance took, and the task's id, "" where it was refused."""
        body: Json = {"model": self._model, "max_tokens": MAX_TOKENS, "temperature": 0}
        if len(numbers) == 1:
            path, body = "/api/completions", body | {"prompt": question(numbers[0]), "background": True}
        else:
            path, body = "/api/completions/batch", body | {"prompts": [question(number) for number in numbers]}
        timed, document = await self._post(path, body)
        return timed, str(document.get("task_id", ""))

    async def finished(self, id: str, patience: float) -> Task:
        """The task when it is over; after ``patience`` seconds it is cancelled, and so it is where the caller is."""
        try:
            async with asyncio.timeout(patience):
                return await self._over(id)
        except asyncio.CancelledError:
            # whoever ends a run does not want the model server to go on with it
            await self._cancel(id)
            raise
        except TimeoutError:
            await self._cancel(id)
            return Task(patience, 0, f"{id} was not over after {patience:.0f} s, and was cancelled")
        except (httpx.HTTPError, LookupError, TypeError, ValueError) as error:
            return Task(0.0, 0, f"{id}: {_said(error)}")

    async def _cancel(self, id: str) -> None:
        with suppress(httpx.HTTPError):
            await self._http.delete(f"/api/tasks/{id}", timeout=_CANCELLING)

    async def _over(self, id: str) -> Task:
        pause = _FIRST_PAUSE
        while True:
            answer = await self._http.get(f"/api/tasks/{id}?limit=1")
            document = answer.raise_for_status().json()
            status, progress = JobStatus(document["status"]), document["progress"]
            if status.over:
                flaw = "" if progress["completed"] == progress["total"] else f"{id} is {status}"
                return Task(document["finished_at"] - document["created_at"], progress["completed"], flaw)
            await asyncio.sleep(pause)
            pause = min(pause * _GROWTH, _LONGEST_PAUSE)

    async def _post(self, path: str, body: Json) -> tuple[Timed, Json]:
        began = perf_counter()
        try:
            answer = await self._http.post(path, json=body)
        except httpx.HTTPError as error:
            return Timed(perf_counter() - began, error=_said(error)), {}
        seconds = perf_counter() - began
        document = _document(answer)
        flaw = "" if answer.is_success and document else f"{answer.status_code} {_message(document)}".rstrip()
        return Timed(seconds, answer.headers.get("x-cache", "").lower(), flaw), document


@asynccontextmanager
async def asking(url: str, key: str | None, offer: Offer, most: int) -> AsyncIterator[Asker]:
    """An asker with ``most`` connections, and a cache of its own: what it asks was never asked before, and what it
    leaves behind is forgotten soon."""
    headers = {"authorization": f"Bearer {key}"} if key else {}
    limits = httpx.Limits(max_connections=most, max_keepalive_connections=most)
    client = httpx.AsyncClient(
        base_url=url, headers=headers | apart("bench"), timeout=_TIMEOUT, limits=limits, trust_env=False
    )
    async with client as http:
        yield Asker(http, offer)


def apart(name: str) -> dict[str, str]:
    """Headers that give a run a cache of its own for ten minutes, and its name as the user's in the history."""
    return {
        "x-llmproxy-namespace": f"{name}-{secrets.token_hex(6)}",
        "x-llmproxy-ttl": "600",
        "x-llmproxy-tags": name,
        "x-llmproxy-user": name,
    }


def _document(answer: httpx.Response) -> Json:
    """Empty where it is none."""
    try:
        document = answer.json()
    except json.JSONDecodeError:
        return {}
    return document if isinstance(document, dict) else {}


def _message(document: Json) -> str:
    error = document.get("error")
    return printable(str(error.get("message", "")), _LONGEST) if isinstance(error, dict) else ""


def _said(error: Exception) -> str:
    return printable(str(error) or type(error).__name__, _LONGEST)
