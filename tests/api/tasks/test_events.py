"""A task's events: each once, in order, resumable, and from whichever process is asked."""

import asyncio
from pathlib import Path

import httpx
import pytest

from tests.api.tasks.asking import Json, background, batch, ended, events, message
from tests.conftest import MakeProxy, sound
from tests.scripted import marker
from tests.scripted_upstream import ScriptedUpstream
from tests.server import Line, Proxy
from tests.timeouts import WAIT_SECONDS

Events = list[tuple[int, str, Json]]


async def heard(http: httpx.AsyncClient, id: str, last: int | None = None) -> Events:
    async with asyncio.timeout(WAIT_SECONDS):
        return [event async for event in events(http, id, last)]


async def test_everything_that_happens_is_told_once(http: httpx.AsyncClient, upstream: ScriptedUpstream) -> None:
    gate = upstream.gate()
    id = await batch(http, [f"{marker()} [script:gate={gate.name}]", marker(), f"{marker()} [script:status=400]"])
    told: Events = []
    async with asyncio.timeout(WAIT_SECONDS):
        async for event in events(http, id):
            told.append(event)
            if len(told) == 4:
                # the other two are over: the stream is live
                gate.open()
    assert [(number, name) for number, name, _ in told] == [
        (1, "status"),
        (2, "status"),
        (3, "result"),
        (4, "result"),
        (5, "result"),
        (6, "status"),
    ]
    documents = [document for _, _, document in told]
    assert {document["task_id"] for document in documents} == {id}
    assert [document["status"] for document in (*documents[:2], documents[5])] == ["pending", "running", "completed"]
    assert [document["percent"] for document in documents] == [0.0, 0.0, 33.3, 66.7, 100.0, 100.0]
    assert documents[4]["index"] == 0
    times = [document["at"] for document in documents]
    assert times == sorted(times)
    results = (await ended(http, id))["results"]
    by_index = sorted(documents[2:5], key=lambda document: int(document["index"]))
    assert [{name: document[name] for name in results[0]} for document in by_index] == results
    # asked later, the same is told
    assert await heard(http, id) == told


async def test_a_stream_goes_on_where_it_was_cut_off(http: httpx.AsyncClient) -> None:
    id = await batch(http, [marker() for _ in range(3)])
    told = await heard(http, id)
    for last in range(6):
        assert await heard(http, id, last) == told[last:]
    # to come back after the end is to be told not to come back
    done = await http.get(f"/api/tasks/{id}/events", headers={"last-event-id": "6"})
    assert (done.status_code, done.content) == (204, b"")
    for wrong in ("x", "-1", "1.5"):
        message(await http.get(f"/api/tasks/{id}/events", headers={"last-event-id": wrong}), 400)


async def test_more_results_than_are_read_at_a_time(http: httpx.AsyncClient) -> None:
    prompt = marker()
    await http.post("/api/completions", json={"prompt": prompt})
    told = await heard(http, await batch(http, [prompt] * 250))
    assert [number for number, _, _ in told] == list(range(1, 254))
    assert {document["index"] for _, name, document in told if name == "result"} == set(range(250))


async def test_a_cancelled_task_ends_its_stream(http: httpx.AsyncClient, upstream: ScriptedUpstream) -> None:
    gate = upstream.gate()
    id = await batch(http, [f"{marker()} [script:gate={gate.name}]"] * 2)
    told: Events = []
    async with asyncio.timeout(WAIT_SECONDS):
        async for event in events(http, id):
            told.append(event)
            if len(told) == 2:
                assert (await http.delete(f"/api/tasks/{id}")).status_code == 200
    assert [number for number, _, _ in told] == [1, 2, 5]
    assert told[-1][2]["status"] == "cancelled"
    assert told[-1][2]["progress"]["cancelled"] == 2


async def test_the_form_of_the_stream(proxy: MakeProxy, upstream: ScriptedUpstream) -> None:
    own, gate = proxy(upstream.url, ping_seconds=0.1), upstream.gate()
    async with httpx.AsyncClient(base_url=own.url, trust_env=False, timeout=60) as client:
        id = await background(client, f"{marker()} [script:gate={gate.name}]")
        text = ""
        async with client.stream("GET", f"/api/tasks/{id}/events") as answer:
            assert answer.headers["cache-control"] == "no-cache"
            async for piece in answer.aiter_text():
                text += piece
                if ": ping\n\n" in text:
                    gate.open()
        assert text.startswith("retry: 1000\n\nid: 1\nevent: status\ndata: {")
        assert text.endswith("\n\n")
        head = await client.head(f"/api/tasks/{id}/events")
    assert (head.status_code, head.headers["content-type"]) == (200, "text/event-stream")


async def test_the_work_is_done_by_another_process(upstream: ScriptedUpstream, tmp_path: Path) -> None:
    database = tmp_path / "llmproxy.db"
    with Proxy(upstream.url, database=database, task_queue_workers=0) as watcher:
        async with httpx.AsyncClient(base_url=watcher.url, trust_env=False, timeout=60) as client:
            id = await batch(client, [marker() for _ in range(3)])
            told: Events = []
            worker = Proxy(upstream.url, database=database)
            try:
                async with asyncio.timeout(WAIT_SECONDS):
                    async for event in events(client, id):
                        told.append(event)
                        if event[0] == 1:
                            await asyncio.to_thread(worker.start)
            finally:
                worker.stop()
    assert [number for number, _, _ in told] == [1, 2, 3, 4, 5, 6]
    for server in (watcher, worker):
        sound(server)


@pytest.mark.parametrize("who", ["client", "server"])
async def test_a_stream_ends_with_either_side(proxy: MakeProxy, upstream: ScriptedUpstream, who: str) -> None:
    own, gate = proxy(upstream.url, shutdown_seconds=1), upstream.gate()
    async with httpx.AsyncClient(base_url=own.url, trust_env=False) as client:
        id = await background(client, f"{marker()} [script:gate={gate.name}]")
    with Line(own.port) as line:
        line.request("GET", f"/api/tasks/{id}/events")
        assert line.head().status_code == 200
        seen = b""
        while b"id: 2\n" not in seen:
            seen += line.data() or b""
        if who == "server":
            await asyncio.to_thread(own.stop)
            # a clean end without the last event: the client comes back
            while (piece := line.data()) is not None:
                seen += piece
            assert b"id: 4\n" not in seen
            return
    line_of_it = f"GET /api/tasks/{id}/events 499"
    async with asyncio.timeout(WAIT_SECONDS):
        while line_of_it not in own.log:  # noqa: ASYNC110 - the log is read by a thread
            await asyncio.sleep(0.05)
