"""``llmproxy bench`` against the running program, and its stages against a model that fails."""

import json
from time import perf_counter

import httpx
import pytest

from llmproxy.cli.bench import MOST_ERRORS, Figures, Run, answering_model, hits, stages
from llmproxy.observe.access_log import duration
from tests.cli.program import Program
from tests.conftest import MakeProxy
from tests.scripted import marker
from tests.scripted_upstream import ScriptedUpstream
from tests.server import Proxy

NAMES = list(stages())


def test_a_run_ends_with_a_table(llmproxy: Program, front: Proxy) -> None:
    outcome = llmproxy("bench", "--url", f"{front.url}/v1/", "--seconds", "1")
    assert (outcome.code, "Traceback" in outcome.err) == (0, False)
    assert outcome.err.splitlines() == ["looking for a model", *NAMES]
    lines = outcome.out.splitlines()
    assert lines[0] == f"{front.url}, model scripted"
    assert [name for name in NAMES if not any(line.startswith(name) for line in lines)] == []
    assert "hits are quicker by" in outcome.out


def test_a_run_as_json(llmproxy: Program, front: Proxy) -> None:
    outcome = llmproxy("bench", "--url", front.url, "--seconds", "1", "--json")
    assert outcome.code == 0
    found = json.loads(outcome.out)
    assert (found["url"], found["model"], list(found["stages"])) == (front.url, "scripted", NAMES)
    for stage in found["stages"].values():
        assert stage["answers"] > 0
        assert (stage["errors"], stage["first_error"]) == (0, None)
    times = {name: set(stage["times"]) for name, stage in found["stages"].items()}
    assert times["the same twice"] == {"miss", "hit"}
    assert [times[name] for name in ("1 at a time", "4 at once", "16 at once")] == [{"miss"}] * 3
    asked = found["stages"]["the same twice"]["answers"]
    assert found["stages"]["the same twice"]["times"]["miss"]["count"] == asked / 2
    assert set(found["hits"]) == {"quicker", "rate"}


def test_every_run_has_a_cache_of_its_own(llmproxy: Program, front: Proxy) -> None:
    runs = [json.loads(llmproxy("bench", "--url", front.url, "--seconds", "1", "--json").out) for _ in range(2)]
    assert [set(run["stages"]["1 at a time"]["times"]) for run in runs] == [{"miss"}, {"miss"}]


def test_nobody_there_says_what_to_start(llmproxy: Program) -> None:
    outcome = llmproxy("bench", "--url", "http://127.0.0.1:1")
    assert (outcome.code, outcome.out) == (1, "")
    assert outcome.err.splitlines()[-1].startswith("llmproxy: no answer from http://127.0.0.1:1")
    assert "llmproxy serve" in outcome.err


def test_another_server_is_none_of_ours(llmproxy: Program, upstream: ScriptedUpstream) -> None:
    outcome = llmproxy("bench", "--url", upstream.url)
    assert (outcome.code, "but not as llmproxy would" in outcome.err) == (1, True)


def test_no_model_that_answers_is_said_with_the_reason(llmproxy: Program, front: Proxy) -> None:
    outcome = llmproxy("bench", "--url", front.url, "--model", "[script:status=400]")
    assert outcome.code == 1
    assert "no model answers a chat completion" in outcome.err
    assert "answered 400" in outcome.err


def test_a_model_server_that_is_away_leaves_no_model(llmproxy: Program, proxy: MakeProxy) -> None:
    with ScriptedUpstream() as gone:
        server = proxy(gone.url)
    outcome = llmproxy("bench", "--url", server.url)
    assert (outcome.code, outcome.out) == (1, "")


def test_a_key_is_sent_where_one_is_asked_for(
    llmproxy: Program, upstream: ScriptedUpstream, proxy: MakeProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = proxy(upstream.url, api_keys="alice:a-key")
    monkeypatch.setenv("OPENAI_API_KEY", "another")
    outcome = llmproxy("bench", "--url", server.url)
    assert (outcome.code, "answered 401" in outcome.err) == (1, True)
    assert llmproxy("bench", "--url", server.url, "--api-key", "a-key", "--seconds", "1").code == 0


class Broken(httpx.AsyncBaseTransport):
    """Nothing but errors."""

    def __init__(self, *statuses: int) -> None:
        self._statuses = list(statuses)

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        if not self._statuses:
            raise httpx.ConnectError("gone")
        document = {"error": {"message": "too\nmany"}}
        return httpx.Response(self._statuses.pop(0), json=document, headers={"x-cache": "JOINED"}, request=request)


async def broken(name: str, *statuses: int) -> Figures:
    """A stage that would last for an hour, with these answers and then none."""
    async with httpx.AsyncClient(transport=Broken(*statuses), base_url="http://broken") as http:
        figures = Figures(name)
        _, stage = stages()[name]
        await stage(Run(http, "m"), figures, perf_counter() + 3600)
        return figures


@pytest.mark.parametrize("name", NAMES)
async def test_a_stage_without_an_answer_comes_to_an_end(name: str) -> None:
    figures = await broken(name)
    assert MOST_ERRORS <= figures.errors < MOST_ERRORS + 16
    assert (figures.answers, figures.reason) == (0, "gone")


async def test_an_error_is_told_in_a_line() -> None:
    assert (await broken("1 at a time", 429)).reason.endswith("answered 429: too many")


def test_a_model_that_fails_now_and_then_is_measured(front: Proxy) -> None:
    model = f"[script:status=500 times=1] {marker()}"
    assert answering_model(front.url, None, model) == model


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [
        *((None, "–"), (0.0, "0 ms"), (0.00084, "0.84 ms"), (0.0123, "12 ms"), (0.9, "900 ms"), (1.234, "1.23 s")),
        *((119.94, "119.9 s"), (3600.0, "60 min"), (36000.0, "10.0 h")),
    ],
)
def test_times_have_the_unit_that_fits(seconds: float | None, shown: str) -> None:
    assert duration(seconds) == shown


def test_times_of_errors_are_not_counted() -> None:
    figures = Figures("x", seconds=2.0)
    for seconds, cache, error in ((1.0, "miss", ""), (3.0, "miss", "500"), (0.5, "hit", "")):
        figures.add(seconds, cache, error)
    assert (figures.answers, figures.errors, figures.reason, figures.rate) == (2, 1, "500", 1.0)
    assert hits([figures]) == {"quicker": 0.5, "rate": 0.5}
