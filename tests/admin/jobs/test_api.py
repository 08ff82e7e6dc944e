"""The operator's API over all jobs, on the running program."""

import httpx
import pytest

from tests.admin.jobs.submitting import operator, over, submit, until
from tests.conftest import MakeProxy
from tests.scripted import marker
from tests.scripted_upstream import ScriptedUpstream

REFUSED = "[script:status=400]"


async def test_jobs_of_every_scope_are_listed_page_by_page(upstream: ScriptedUpstream, proxy: MakeProxy) -> None:
    server = proxy(upstream.url)
    ids = [await submit(server, marker(), scope=scope, caller=scope) for scope in ("a", "b", "")]
    async with operator(server) as client:
        for id in ids:
            await until(client, id, over)
        first = (await client.get("/admin/jobs?limit=2")).json()
        second = (await client.get("/admin/jobs", params={"limit": 2, "cursor": first["next"]})).json()
    assert [job["id"] for job in first["data"] + second["data"]] == ids[::-1]
    assert [job["caller"] for job in first["data"]] == ["", "b"]
    assert (first["next"], second["next"]) == (ids[1], None)


async def test_jobs_are_chosen_by_kind_and_status(upstream: ScriptedUpstream, proxy: MakeProxy) -> None:
    server = proxy(upstream.url)
    good, bad = await submit(server, marker()), await submit(server, marker() + REFUSED)
    async with operator(server) as client:
        for id in (good, bad):
            await until(client, id, over)

        async def chosen(query: str) -> list[str]:
            return [job["id"] for job in (await client.get(f"/admin/jobs?{query}")).json()["data"]]

        assert await chosen("kind=task") == [bad, good]
        assert await chosen("kind=batch") == []
        assert await chosen("status=failed") == [bad]
        assert await chosen("kind=task&status=completed") == [good]


async def test_a_job_is_shown_with_what_became_of_its_calls(upstream: ScriptedUpstream, proxy: MakeProxy) -> None:
    server = proxy(upstream.url)
    same = marker()
    id = await submit(server, same, marker() + REFUSED, marker() + REFUSED, user="me", session="s", model="m")
    again = await submit(server, same)
    async with operator(server) as client:
        await until(client, again, over)
        job = await until(client, id, over)
        less = (await client.get(f"/admin/jobs/{id}?errors=1")).json()
    assert job["status"] == "completed"
    assert job["progress"] == {
        "total": 3,
        "completed": 1,
        "failed": 2,
        "cancelled": 0,
        "expired": 0,
        "percent": 100.0,
    }
    assert (job["user"], job["session"], job["model"], job["path"]) == ("me", "s", "m", "/v1/chat/completions")
    assert job["tokens"]["completion"] > 0
    assert job["created_at"] <= job["started_at"] <= job["finished_at"]
    assert job["attempts"] == 3
    assert [(error["position"], error["label"], error["status_code"]) for error in job["errors"]] == [
        (1, "r1", 400),
        (2, "r2", 400),
    ]
    assert job["errors"][0]["message"]
    assert less["errors"] == job["errors"][:1]


async def test_a_job_whose_answer_was_known_counts_a_hit(upstream: ScriptedUpstream, proxy: MakeProxy) -> None:
    server, prompt = proxy(upstream.url), marker()
    async with operator(server) as client:
        hits = [(await until(client, await submit(server, prompt), over))["hits"] for _ in range(2)]
    assert hits == [0, 1]


async def test_secrets_of_callers_are_not_shown(upstream: ScriptedUpstream, proxy: MakeProxy) -> None:
    server = proxy(upstream.url)
    id = await submit(
        server, marker(), webhook_url="http://127.0.0.1:1/?key=hidden", headers=[(b"x-llmproxy-tags", b"hidden")]
    )
    async with operator(server) as client:
        await until(client, id, over)
        texts = [(await client.get(path)).text for path in ("/admin/jobs", f"/admin/jobs/{id}")]
    assert all("hidden" not in text for text in texts)


async def test_a_cancelled_job_ends_upstream_and_once_more_does_no_harm(
    upstream: ScriptedUpstream, proxy: MakeProxy
) -> None:
    server, prompt = proxy(upstream.url), marker()
    gate = upstream.gate()
    id = await submit(server, f"{prompt}[script:gate={gate.name}]")
    visit = await upstream.journal.reached(prompt)
    async with operator(server) as client:
        answers = [await client.post(f"/admin/jobs/{id}/cancel") for _ in range(2)]
    assert [answer.status_code for answer in answers] == [200, 200]
    assert [answer.json()["status"] for answer in answers] == ["cancelled", "cancelled"]
    assert answers[0].json()["progress"]["cancelled"] == 1
    await visit.left.reached()


async def test_what_is_over_cannot_be_cancelled(upstream: ScriptedUpstream, proxy: MakeProxy) -> None:
    server = proxy(upstream.url)
    id = await submit(server, marker())
    async with operator(server) as client:
        await until(client, id, over)
        answer = await client.post(f"/admin/jobs/{id}/cancel")
    assert answer.status_code == 409
    assert answer.headers["x-should-retry"] == "false"
    assert answer.json()["error"]["message"] == f"Job {id} is completed: it cannot be cancelled any more."


async def test_only_what_failed_is_tried_again(upstream: ScriptedUpstream, proxy: MakeProxy) -> None:
    server, good, bad = proxy(upstream.url), marker(), marker()
    id = await submit(server, good, bad + REFUSED, headers=[(b"cache-control", b"no-store")])
    async with operator(server) as client:
        await until(client, id, over)
        answer = await client.post(f"/admin/jobs/{id}/retry")
        assert (answer.status_code, answer.json()["status"]) == (200, "running")
        await upstream.journal.reached(bad, 2)
        job = await until(client, id, over)
        assert (job["progress"]["completed"], job["progress"]["failed"]) == (1, 1)
        assert len(upstream.visits(good)) == 1
        good_only = await submit(server, marker())
        await until(client, good_only, over)
        nothing = await client.post(f"/admin/jobs/{good_only}/retry")
    assert nothing.status_code == 409
    assert nothing.headers["x-should-retry"] == "false"


@pytest.mark.parametrize(
    "method_and_path", ["GET /admin/jobs/x", "POST /admin/jobs/x/cancel", "POST /admin/jobs/x/retry"]
)
async def test_nobodys_id_is_404(http: httpx.AsyncClient, method_and_path: str) -> None:
    answer = await http.request(*method_and_path.split())
    assert answer.status_code == 404
    assert answer.json()["error"] == {
        "message": "No job has the id 'x'.",
        "type": "invalid_request_error",
        "param": "id",
        "code": "not_found",
    }


@pytest.mark.parametrize(
    ("query", "param"),
    [
        ("?kind=chat", "kind"),
        ("?status=done", "status"),
        ("?status=", "status"),
        ("?limit=0", "limit"),
        ("?limit=101", "limit"),
        ("?limit=two", "limit"),
        ("/x?errors=-1", "errors"),
        ("/x?errors=1001", "errors"),
    ],
)
async def test_a_wrong_parameter_is_named(http: httpx.AsyncClient, query: str, param: str) -> None:
    answer = await http.get(f"/admin/jobs{query}")
    assert answer.status_code == 400
    assert answer.json()["error"]["param"] == param


async def test_another_method_is_405(http: httpx.AsyncClient) -> None:
    assert (await http.get("/admin/jobs/x/cancel")).status_code == 405
    assert (await http.delete("/admin/jobs/x")).status_code == 405


async def test_the_guard_is_before_the_jobs(upstream: ScriptedUpstream, proxy: MakeProxy) -> None:
    server = proxy(upstream.url, api_keys="alice:a-key", admin_token="t0ken")
    async with operator(server, "a-key") as alice, operator(server, "t0ken") as admin:
        assert (await alice.get("/admin/jobs")).status_code == 401
        assert (await alice.post("/admin/jobs/x/cancel")).status_code == 401
        assert (await admin.get("/admin/jobs")).json()["data"] == []


async def test_where_jobs_are_switched_off_the_setting_is_named(upstream: ScriptedUpstream, proxy: MakeProxy) -> None:
    server = proxy(upstream.url, jobs="false")
    async with operator(server) as client:
        for method, path in (("GET", ""), ("GET", "/x"), ("POST", "/x/cancel"), ("POST", "/x/retry")):
            answer = await client.request(method, f"/admin/jobs{path}")
            assert answer.status_code == 404
            assert "LLMPROXY_JOBS" in answer.json()["error"]["message"]
