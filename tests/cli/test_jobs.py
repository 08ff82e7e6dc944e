"""``llmproxy jobs`` against the running program, and its tables."""

import asyncio
import json
from typing import Any

import pytest

from llmproxy.cli.client import understanding
from llmproxy.cli.jobs import details, table
from llmproxy.cli.options import CommandFailed
from tests.admin.jobs.submitting import operator, over, submit, until
from tests.cli.program import Program
from tests.conftest import MakeProxy
from tests.scripted import marker
from tests.scripted_upstream import ScriptedUpstream
from tests.server import Proxy

REFUSED = "[script:status=400]"

JOB: dict[str, Any] = {
    "id": "batch_1",
    "kind": "batch",
    "status": "running",
    "path": "/v1/chat/completions",
    "model": "m",
    "caller": "",
    "user": "",
    "session": "",
    "created_at": 0.0,
    "started_at": 60.0,
    "finished_at": None,
    "expires_at": 86400.0,
    "progress": {"total": 12000, "completed": 1500, "failed": 2, "cancelled": 0, "expired": 0, "percent": 12.5},
    "hits": 7,
    "tokens": {"prompt": 5000, "completion": 600, "cached": 0, "reasoning": 0},
    "error": None,
    "attempts": 1504,
    "errors": [],
}


def ended(proxy: Proxy, *prompts: str, **more: Any) -> str:
    """The id of a task that is over."""

    async def work() -> str:
        id = await submit(proxy, *prompts, **more)
        async with operator(proxy) as client:
            await until(client, id, over)
        return id

    return asyncio.run(work())


def test_jobs_are_listed_and_the_rest_is_named(llmproxy: Program, upstream: ScriptedUpstream, proxy: MakeProxy) -> None:
    server = proxy(upstream.url)
    assert llmproxy("jobs", "list", "--url", server.url).out == "no jobs\n"
    good, bad = ended(server, marker(), model="m"), ended(server, marker() + REFUSED)
    head, first, more = llmproxy("jobs", "list", "--limit", "1", "--url", server.url).out.splitlines()
    assert head.split() == ["job", "status", "model", "calls", "done", "failed", "hits", "age"]
    assert first.split()[:7] == [bad, "failed", "–", "1", "0", "1", "0"]
    assert more == f"there are more: --after {bad}"
    rest = llmproxy("jobs", "list", "--after", bad, "--url", server.url).out.splitlines()
    assert [line.split()[:4] for line in rest[1:]] == [[good, "completed", "m", "1"]]
    chosen = llmproxy("jobs", "list", "--kind", "task", "--status", "failed", "--json", "--url", server.url).out
    assert [job["id"] for job in json.loads(chosen)["data"]] == [bad]


def test_a_job_is_shown_with_the_reasons_of_its_failures(
    llmproxy: Program, upstream: ScriptedUpstream, proxy: MakeProxy
) -> None:
    server = proxy(upstream.url)
    id = ended(server, marker(), marker() + REFUSED, marker() + REFUSED, user="me")
    lines = llmproxy("jobs", "show", id, "--errors", "1", "--url", server.url).out.splitlines()
    facts = dict(line.split(maxsplit=1) for line in lines[: lines.index("")])
    assert (facts["job"], facts["status"], facts["from"]) == (id, "completed", "me")
    assert facts["calls"] == "3, 1 completed, 2 failed"
    (failure,) = lines[lines.index("") + 2 :]
    assert failure.split()[:4] == ["1", "1", "400", "r1"]
    assert "refused with 400" in failure
    assert json.loads(llmproxy("jobs", "show", id, "--json", "--url", server.url).out)["attempts"] == 3


def test_a_job_is_cancelled(llmproxy: Program, upstream: ScriptedUpstream, proxy: MakeProxy) -> None:
    server, prompt = proxy(upstream.url), marker()
    gate = upstream.gate()
    id = asyncio.run(submit(server, f"{prompt}[script:gate={gate.name}]"))
    visit = upstream.journal.wait(prompt)
    assert llmproxy("jobs", "cancel", id, "--url", server.url).out == f"{id} is cancelled\n"
    visit.left.wait()
    assert json.loads(llmproxy("jobs", "cancel", id, "--json", "--url", server.url).out)["status"] == "cancelled"


def test_a_job_is_tried_again(llmproxy: Program, upstream: ScriptedUpstream, proxy: MakeProxy) -> None:
    server, prompt = proxy(upstream.url), marker()
    id = ended(server, prompt + REFUSED)
    assert llmproxy("jobs", "retry", id, "--url", server.url).out == f"{id} is running\n"
    upstream.journal.wait(prompt, 2)


@pytest.mark.parametrize("verb", ["show", "cancel", "retry"])
def test_a_refusal_is_one_line_and_1(llmproxy: Program, front: Proxy, verb: str) -> None:
    outcome = llmproxy("jobs", verb, "task/../1", "--url", front.url)
    assert (outcome.code, outcome.out, outcome.err.count("\n")) == (1, "", 1)
    assert "answered 404" in outcome.err


def test_the_numbers_of_a_job_that_runs() -> None:
    assert [line.split() for line in table([JOB], 90.0)][1] == [
        *("batch_1", "running", "m", "12,000", "1,500", "2", "7", "90.0", "s")
    ]
    facts = dict(line.split(maxsplit=1) for line in details(JOB, 90.0))
    assert facts["took"] == "30.0 s so far"
    assert facts["created"] == "1970-01-01 00:00:00 UTC"
    assert facts["from"] == "anybody"
    assert facts["attempts"] == "1,504"
    assert facts["tokens"] == "5,000 of prompts, 600 of completions"


def test_the_error_of_a_whole_job_is_shown() -> None:
    facts = dict(line.split(maxsplit=1) for line in details({**JOB, "error": {"code": "c", "message": "why"}}, 0.0))
    assert facts["error"] == "c: why"


def test_nothing_that_callers_wrote_moves_the_terminals_cursor() -> None:
    evil = "\x1b[2J\r\n\x07evil"
    error = {"position": 1, "label": evil, "status_code": None, "attempts": 1, "code": evil, "message": evil}
    job = {**JOB, "model": evil, "user": evil, "session": evil, "caller": evil, "errors": [error]}
    lines = [*table([job], 0.0), *details(job, 0.0)]
    assert all(line.isprintable() for line in lines)
    assert sum("evil" in line for line in lines) == 4


@pytest.mark.parametrize("document", [{}, {**JOB, "progress": None}, {**JOB, "created_at": "yesterday"}])
def test_a_document_of_another_version_is_a_failure(document: dict[str, Any]) -> None:
    with pytest.raises(CommandFailed, match="not understood"), understanding():
        list(details(document, 0.0))
