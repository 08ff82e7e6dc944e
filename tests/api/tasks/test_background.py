"""Tasks: accepted at once, looked up, listed, cancelled."""

from pathlib import Path

import httpx

from tests.api.tasks.asking import background, batch, ended, message, task
from tests.conftest import MakeProxy, sound
from tests.scripted import marker
from tests.scripted_upstream import ScriptedUpstream
from tests.server import Proxy


async def test_a_task_from_its_acceptance_to_its_result(http: httpx.AsyncClient, upstream: ScriptedUpstream) -> None:
    prompt, gate = marker(), upstream.gate()
    order = {"prompt": f"{prompt} [script:gate={gate.name}]", "background": True, "user_id": "ann", "session_id": "s"}
    answer = await http.post("/api/completions", json=order)
    accepted = answer.json()
    id = accepted["task_id"]
    assert answer.status_code == 202
    assert answer.headers["location"] == f"/api/tasks/{id}"
    assert accepted["status"] == accepted["detail"]["status"] == "pending"
    assert accepted["detail"]["task_id"] == id
    assert accepted["detail"]["message"]
    await gate.arrived.reached()
    gate.open()
    done = await ended(http, id)
    (visit,) = upstream.visits(prompt)
    assert done["status"] == "completed"
    assert done["progress"] == {"total": 1, "completed": 1, "failed": 0, "cancelled": 0, "percent": 100.0}
    assert done["created_at"] <= done["started_at"] <= done["finished_at"]
    assert (done["model"], done["instruction_type"]) == ("scripted", "default")
    assert (done["user_id"], done["session_id"], done["attempts"]) == ("ann", "s", 1)
    assert done["results"] == [done["result"]]
    assert done["result"] == {
        "index": 0,
        "status": "completed",
        "response": f"answer-{visit.number} zero one two three four",
        "model": "scripted",
        "cached": False,
        "usage": {"prompt_tokens": 7, "completion_tokens": 6, "total_tokens": 13},
        "error": None,
        "attempts": 1,
    }


async def test_a_batch_keeps_the_order_of_its_prompts(http: httpx.AsyncClient, upstream: ScriptedUpstream) -> None:
    known = marker()
    await http.post("/api/completions", json={"prompt": known})
    prompts = [marker() for _ in range(12)]
    prompts[5], prompts[7] = known, f"{marker()} [script:status=400]"
    answer = await http.post("/api/completions/batch", json={"prompts": prompts})
    assert (answer.status_code, answer.json()["total"]) == (202, 12)
    assert answer.headers["location"] == f"/api/tasks/{answer.json()['task_id']}"
    done = await ended(http, answer.json()["task_id"])
    assert done["status"] == "completed"
    assert done["progress"] == {"total": 12, "completed": 11, "failed": 1, "cancelled": 0, "percent": 100.0}
    assert "result" not in done
    results = done["results"]
    assert [result["index"] for result in results] == list(range(12))
    assert [result["cached"] for result in results] == [index == 5 for index in range(12)]
    for prompt, result in zip(prompts, results, strict=True):
        (visit,) = upstream.visits(prompt.split()[0])
        if result["index"] == 7:
            assert (result["status"], result["response"]) == ("failed", None)
            assert result["error"]["message"]
        else:
            assert result["response"].startswith(f"answer-{visit.number} ")


async def test_a_task_of_which_nothing_came_is_failed(http: httpx.AsyncClient) -> None:
    done = await ended(http, await background(http, f"{marker()} [script:status=400]"))
    assert done["status"] == "failed"
    assert done["result"]["error"]["message"]
    assert done["result"]["response"] is None


async def test_results_come_in_pages(http: httpx.AsyncClient) -> None:
    id = await batch(http, [marker() for _ in range(5)])
    await ended(http, id)
    pages = [await task(http, id, limit=2), await task(http, id, limit=2, cursor=1), await task(http, id, cursor=3)]
    assert [[result["index"] for result in page["results"]] for page in pages] == [[0, 1], [2, 3], [4]]
    assert [page["next"] for page in pages] == [1, 3, None]
    for query in ({"limit": "0"}, {"limit": "1001"}, {"limit": "x"}, {"cursor": "-1"}):
        assert message(await http.get(f"/api/tasks/{id}", params=query), 400)


async def test_the_same_idempotency_key_is_the_same_task(http: httpx.AsyncClient, upstream: ScriptedUpstream) -> None:
    prompt, headers = marker(), {"idempotency-key": marker()}
    order = {"prompt": prompt, "background": True}
    first, again = [await http.post("/api/completions", json=order, headers=headers) for _ in range(2)]
    assert first.json()["task_id"] == again.json()["task_id"]
    await ended(http, first.json()["task_id"])
    assert len(upstream.visits(prompt)) == 1
    other = await http.post("/api/completions", json=order, headers={"idempotency-key": marker()})
    assert other.json()["task_id"] != first.json()["task_id"]


async def test_the_list(http: httpx.AsyncClient) -> None:
    user = marker()
    good = [await background(http, marker(), user_id=user) for _ in range(3)]
    bad = await background(http, f"{marker()} [script:status=400]", user_id=user)
    for id in (*good, bad):
        await ended(http, id)
    first = (await http.get("/api/tasks", params={"user_id": user, "limit": 3})).json()
    rest = (await http.get("/api/tasks", params={"user_id": user, "limit": 3, "cursor": first["next"]})).json()
    assert first["object"] == "list"
    assert [each["task_id"] for each in first["data"] + rest["data"]] == [bad, *reversed(good)]
    assert rest["next"] is None
    failed = (await http.get("/api/tasks", params={"user_id": user, "status": "failed"})).json()["data"]
    assert [each["task_id"] for each in failed] == [bad]
    assert failed[0]["progress"]["failed"] == 1


async def test_the_list_refuses_what_it_does_not_know(http: httpx.AsyncClient) -> None:
    for query in ({"status": "expired"}, {"limit": "0"}, {"limit": "101"}, {"cursor": "7"}, {"user_id": "u" * 129}):
        assert next(iter(query)) in message(await http.get("/api/tasks", params=query), 400)


async def test_cancelling_ends_the_generation(http: httpx.AsyncClient, upstream: ScriptedUpstream) -> None:
    prompt, gate = marker(), upstream.gate()
    id = await batch(http, [marker(), f"{prompt} [script:gate={gate.name}]"])
    await gate.arrived.reached()
    cancelled = await http.delete(f"/api/tasks/{id}")
    assert (cancelled.status_code, cancelled.json()["status"]) == (200, "cancelled")
    (visit,) = upstream.visits(prompt)
    await visit.left.reached()
    done = await ended(http, id)
    assert done["results"][1]["status"] == "cancelled"
    assert done["progress"]["completed"] + done["progress"]["cancelled"] == 2
    assert (await http.delete(f"/api/tasks/{id}")).json() == done


async def test_what_is_over_cannot_be_cancelled(http: httpx.AsyncClient) -> None:
    id = await background(http, marker())
    await ended(http, id)
    refused = await http.delete(f"/api/tasks/{id}")
    assert "completed" in message(refused, 409)
    assert refused.headers["x-should-retry"] == "false"


async def test_what_is_not_there(http: httpx.AsyncClient) -> None:
    unknown = f"task_{'0' * 32}"
    for id in (unknown, "x", "task_", "a" * 500):
        for method, path in (("GET", ""), ("DELETE", ""), ("GET", "/events")):
            said = message(await http.request(method, f"/api/tasks/{id}{path}"), 404)
            assert said == f"No task found with id '{id[:100]}'."
    assert message(await http.put(f"/api/tasks/{unknown}"), 405)


async def test_callers_see_only_their_own(proxy: MakeProxy, upstream: ScriptedUpstream) -> None:
    own = proxy(upstream.url, api_keys="ann:key-a, bob:key-b")
    ann, bob = [
        httpx.AsyncClient(base_url=own.url, headers={"authorization": f"Bearer {key}"}, trust_env=False)
        for key in ("key-a", "key-b")
    ]
    async with ann, bob:
        headers = {"idempotency-key": "one"}
        order = {"prompt": marker(), "background": True}
        mine, theirs = [
            (await each.post("/api/completions", json=order, headers=headers)).json()["task_id"] for each in (ann, bob)
        ]
        assert mine != theirs
        await ended(ann, mine)
        assert [each["task_id"] for each in (await ann.get("/api/tasks")).json()["data"]] == [mine]
        for method, path in (("GET", ""), ("DELETE", ""), ("GET", "/events")):
            message(await bob.request(method, f"/api/tasks/{mine}{path}"), 404)
        async with httpx.AsyncClient(base_url=own.url, trust_env=False) as nobody:
            message(await nobody.get("/api/tasks"), 401)


async def test_tasks_wait_for_a_model_server(proxy: MakeProxy) -> None:
    with ScriptedUpstream() as upstream:
        upstream.down()
        own = proxy(upstream.url)
        async with httpx.AsyncClient(base_url=own.url, trust_env=False, timeout=60) as client:
            id = await background(client, marker())
            assert (await task(client, id))["status"] == "pending"
            upstream.up()
            done = await ended(client, id)
    assert (done["status"], done["attempts"]) == ("completed", 1)


async def test_a_task_survives_a_killed_process(upstream: ScriptedUpstream, tmp_path: Path) -> None:
    gate, prompts = upstream.gate(), [marker() for _ in range(3)]
    prompts[1] += f" [script:gate={gate.name}]"
    server = Proxy(upstream.url, database=tmp_path / "llmproxy.db").start()
    try:
        async with httpx.AsyncClient(base_url=server.url, trust_env=False) as client:
            id = await batch(client, prompts)
            await gate.arrived.reached()
        server.kill()
        gate.open()
        server.start()
        async with httpx.AsyncClient(base_url=server.url, trust_env=False, timeout=60) as client:
            done = await ended(client, id)
    finally:
        server.stop()
    sound(server)
    assert done["progress"]["completed"] == 3
    assert [result["response"][:7] for result in done["results"]] == ["answer-"] * 3


async def test_ten_thousand_prompts_are_taken_at_once(proxy: MakeProxy, upstream: ScriptedUpstream) -> None:
    own, word = proxy(upstream.url, task_queue_workers=0), marker()
    prompts = [f"{word} {number}" for number in range(10_000)]
    async with httpx.AsyncClient(base_url=own.url, trust_env=False, timeout=60) as client:
        id = await batch(client, prompts)
        last = await task(client, id, cursor=9_998)
        assert (await client.delete(f"/api/tasks/{id}")).json()["progress"]["cancelled"] == 10_000
    assert (last["progress"]["total"], last["next"]) == (10_000, None)
    assert [(result["index"], result["status"]) for result in last["results"]] == [(9_999, "pending")]
