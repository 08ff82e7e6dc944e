"""The history as the operator asks for it, from the running program."""

import asyncio
import csv
import io
import json
from typing import Any
from urllib.parse import quote

import httpx
import pytest

from llmproxy.database.engine import open_database
from tests.conftest import MakeProxy
from tests.databases import sqlite_url
from tests.history.exchanges import fetched
from tests.history.keeping import write
from tests.scripted import CHAT, Json, marker
from tests.scripted_upstream import ScriptedUpstream
from tests.server import Proxy
from tests.timeouts import WAIT_SECONDS

FAILING = "[script:status=502]"


async def ask(client: httpx.AsyncClient, prompt: str, *, user: str = "ann", session: str = "s1", **more: Any) -> str:
    """Asks, and returns the request's id when the history has its row."""
    headers = {"x-llmproxy-user": user.encode(), "x-llmproxy-session": session.encode(), **more.pop("headers", {})}
    answer = await client.post(CHAT.path, json=CHAT.request(prompt, **more), headers=headers)
    id: str = answer.headers["x-request-id"]
    await recorded(client, id)
    return id


async def recorded(client: httpx.AsyncClient, id: str) -> None:
    """Returns when the history has a row of this request: on a busy machine that takes longer than a reader waits."""
    async with asyncio.timeout(WAIT_SECONDS):
        while (await client.get(f"/api/history/{quote(id, safe='')}")).status_code == 404:
            pass


async def listed(client: httpx.AsyncClient, **parameters: Any) -> list[str]:
    """The request ids of a page."""
    answer = await client.get("/api/history", params=parameters)
    assert answer.status_code == 200, answer.text
    return [row["request_id"] for row in answer.json()["data"]]


async def explained(client: httpx.AsyncClient, id: str) -> Json:
    answer = await client.get(f"/api/history/{id}/explain")
    assert answer.status_code == 200, answer.text
    found: Json = answer.json()
    return found


async def test_each_filter_finds_its_own(client: httpx.AsyncClient) -> None:
    word = marker()
    miss = await ask(client, f"{word} red apple")
    hit = await ask(client, f"{word} red apple")
    other = await ask(client, f"{word} green pear", user="bob", session="s2", model="other")
    failed = await ask(client, f"{word} {FAILING}", user="", session="")
    assert await listed(client) == [failed, other, hit, miss]
    for parameters, ids in (
        ({"limit": 2}, [failed, other]),
        ({"user_id": "ann"}, [hit, miss]),
        ({"session_id": "s2"}, [other]),
        ({"model": "other"}, [other]),
        ({"endpoint": "chat", "cache": "hit"}, [hit]),
        ({"endpoint": "embeddings"}, []),
        ({"cache": "miss"}, [failed, other, miss]),
        ({"status": 502}, [failed]),
        ({"status": 200, "user_id": "bob"}, [other]),
        ({"q": "red"}, [hit, miss]),
        ({"q": "PEAR green"}, [other]),
        ({"q": "pear.green"}, []),
        ({"q": "red", "cache": "hit"}, [hit]),
        ({"since": 0, "until": "2020-01-01"}, []),
        ({"since": "2020-01-01T00:00:00Z", "limit": 1}, [failed]),
    ):
        assert await listed(client, **parameters) == ids, parameters


async def test_pages_follow_each_other(client: httpx.AsyncClient) -> None:
    ids = [await ask(client, marker()) for _ in range(5)]
    found: list[str] = []
    parameters: dict[str, Any] = {"limit": 2}
    for more in (True, True, False):
        page = (await client.get("/api/history", params=parameters)).json()
        found += [row["request_id"] for row in page["data"]]
        parameters["cursor"] = page["next"]
        assert (page["next"] is not None) == more
    assert found == ids[::-1]


@pytest.mark.parametrize(
    ("query", "name"),
    [
        ("limit=0", "limit"),
        ("limit=1001", "limit"),
        ("limit=ten", "limit"),
        ("status=600", "status"),
        ("cache=warm", "cache"),
        ("endpoint=chats", "endpoint"),
        ("since=yesterday", "since"),
        ("until=2026-13-01", "until"),
        ("q=", "q"),
        ("q=...", "q"),
        (f"q={'a+' * 40}", "q"),
        ("cursor=5", "cursor"),
        ("format=xml", "format"),
        ("bodies=true", "bodies"),
        ("preview=yes", "preview"),
        ("user=ann", "user"),
        ("model=a&model=b", "model"),
    ],
)
async def test_what_is_not_understood_is_refused(http: httpx.AsyncClient, query: str, name: str) -> None:
    answer = await http.get(f"/api/history?{query}")
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, name), answer.text


@pytest.mark.parametrize(
    "path",
    [
        "sessions?q=1",
        "users?user_id=1",
        "history/x?limit=1",
        "sessions/s?a=b",
        "users/u?a=b",
        "performance?windw=5m",
    ],
)
async def test_unknown_parameters_are_refused_everywhere(http: httpx.AsyncClient, path: str) -> None:
    answer = await http.get(f"/api/{path}")
    assert (answer.status_code, "There is no parameter" in answer.text) == (400, True)


@pytest.mark.parametrize("path", ["history/nothing", "history/nothing/explain", "sessions/nobody's", "users/nobody"])
async def test_what_is_not_there_is_a_404(http: httpx.AsyncClient, path: str) -> None:
    answer = await http.get(f"/api/{path}")
    assert (answer.status_code, answer.json()["error"]["code"]) == (404, "not_found")


async def test_one_exchange_with_all_that_is_known(client: httpx.AsyncClient) -> None:
    id = await ask(client, f"{marker()} mail bob@example.com", seed=1.50, headers={"x-llmproxy-namespace": "n"})
    found = (await client.get(f"/api/history/{id}")).json()
    assert (found["request_id"], found["user"], found["namespace"], found["cache"]) == (id, "ann", "n", "miss")
    assert found["request"]["body"]["messages"][0]["content"].endswith("mail [redacted]")
    assert found["response"]["body"]["choices"]
    assert not found["request"]["cut"]
    assert {"read", "key", "look up", "send"} <= set(found["phases"])
    assert 0 < found["phases"]["send"] < found["total_seconds"]
    assert len(found["key"]) == 64
    assert found["identity"]


async def test_a_long_body_is_text_that_says_it_was_cut(client: httpx.AsyncClient) -> None:
    id = await ask(client, f"{marker()} {'long ' * 1000}")
    found = (await client.get(f"/api/history/{id}")).json()
    assert found["request"]["cut"]
    assert isinstance(found["request"]["body"], str)
    assert len(found["request"]["body"]) == found["request"]["bytes"] == 2_000


async def test_ids_may_hold_anything(client: httpx.AsyncClient) -> None:
    for id in ("a/b", "50%?#", "a/explain", "explain", "a/explain/explain"):
        assert await ask(client, marker(), headers={"x-request-id": id}) == id
        for path in (f"/api/history/{quote(id, safe='')}", f"/api/history/{quote(id, safe='')}/explain"):
            assert (await client.get(path)).json()["request_id"] == id


async def test_requests_of_one_id_are_told_apart_by_their_row(client: httpx.AsyncClient) -> None:
    prompts = [marker(), marker()]
    for prompt in prompts:
        await ask(client, prompt, headers={"x-request-id": "mine"})
    rows = (await client.get("/api/history")).json()["data"]
    for row, prompt in zip(rows, reversed(prompts), strict=True):
        found = (await client.get("/api/history/mine", params={"row": row["id"]})).json()
        assert found["request"]["body"]["messages"][-1]["content"] == prompt
        told = (await client.get("/api/history/mine/explain", params={"row": row["id"]})).json()
        assert told["created_at"] == row["created_at"]
    assert (await client.get("/api/history/mine")).json()["id"] == rows[0]["id"]
    other = await ask(client, marker())
    assert (await client.get(f"/api/history/{other}", params={"row": rows[0]["id"]})).status_code == 404
    for row in ("one", "-1", "9" * 19, ""):
        answer = await client.get("/api/history/mine", params={"row": row})
        assert (answer.status_code, answer.json()["error"]["param"]) == (400, "row")


async def test_a_list_says_what_each_request_asks(client: httpx.AsyncClient) -> None:
    word = marker()
    await ask(client, f"{word} first\nline")
    await ask(client, f"{word} bob@example.com")
    await client.get("/v1/unheard")
    page = (await client.get("/api/history?preview=true")).json()["data"]
    assert [row["preview"] for row in page] == ["", f"{word} [redacted]", f"{word} first line"]
    found = (await client.get("/api/history", params={"preview": "true", "q": "first"})).json()["data"]
    assert [row["preview"] for row in found] == [f"{word} first line"]
    assert "preview" not in (await client.get("/api/history")).json()["data"][0]


async def test_a_query_is_kept_where_it_holds_no_secret(client: httpx.AsyncClient) -> None:
    for query, kept in (
        ("", ""),
        ("beta=true", "beta=true"),
        ("api-version=1&beta=x", "api-version=1&beta=x"),
        ("beta=x&key=s", None),
    ):
        answer = await client.post(f"{CHAT.path}?{query}", json=CHAT.request(marker()))
        found = (await client.get(f"/api/history/{answer.headers['x-request-id']}")).text
        assert json.loads(found)["query"] == kept, query
        assert "key=s" not in found


async def test_an_export_is_one_json_document_a_line(client: httpx.AsyncClient) -> None:
    word = marker()
    ids = [await ask(client, f"{word}\n{number}") for number in range(3)]
    answer = await client.get("/api/history", params={"format": "jsonl", "bodies": "true", "q": word})
    assert answer.headers["content-type"] == "application/x-ndjson"
    assert answer.headers["content-disposition"] == 'attachment; filename="history.jsonl"'
    rows = [json.loads(line) for line in answer.text.splitlines()]
    assert [row["request_id"] for row in rows] == ids[::-1]
    assert rows[0]["request"]["messages"][0]["content"] == f"{word}\n2"
    assert rows[0]["response"]["choices"]
    short = await client.get("/api/history", params={"format": "jsonl", "limit": 2})
    assert [json.loads(line)["request_id"] for line in short.text.splitlines()] == ids[:0:-1]
    assert "request" not in json.loads(short.text.splitlines()[0])


async def test_a_spreadsheet_finds_no_formula_in_an_export(client: httpx.AsyncClient) -> None:
    await ask(client, marker(), user='=HYPERLINK("http://x")', session="@SUM(A1)", model='-m, "q"')
    answer = await client.get("/api/history", params={"format": "csv", "bodies": "true"})
    assert answer.headers["content-type"] == "text/csv; charset=utf-8"
    (row,) = csv.DictReader(io.StringIO(answer.text))
    assert (row["user"], row["session"], row["model"]) == ('\'=HYPERLINK("http://x")', "'@SUM(A1)", '\'-m, "q"')
    assert (row["stream"], row["status"]) == ("false", "200")
    assert json.loads(row["request"])["messages"]


async def test_an_empty_export_is_one_all_the_same(client: httpx.AsyncClient) -> None:
    head = (await client.get("/api/history?format=csv")).text
    assert head.startswith("id,request_id,")
    assert (await client.get("/api/history?format=jsonl")).content == b""


async def test_an_export_takes_little_memory_and_ends_with_its_client(server: Proxy, client: httpx.AsyncClient) -> None:
    body = json.dumps({"prompt": "x" * 20_000}).encode()
    async with open_database(sqlite_url(server.database)) as database:
        for _ in range(4):
            await write(database, [fetched(request_body=body)] * 1_000)
    before = server.resident
    size = 0
    async with client.stream("GET", "/api/history?format=jsonl&bodies=true") as answer:
        async for chunk in answer.aiter_bytes():
            size += len(chunk)
    assert size > 80_000_000
    assert server.resident - before < 40_000_000
    async with client.stream("GET", "/api/history?format=jsonl&bodies=true") as answer:
        await anext(answer.aiter_bytes())
    while 'llmproxy_requests_in_flight{endpoint="history"} 0' not in (page := (await client.get("/metrics")).text):
        assert "in_flight" in page


async def test_users_and_sessions(client: httpx.AsyncClient) -> None:
    word = marker()
    for user, session in (("ann", "s1"), ("ann", "s1"), ("bob", "s1"), ("ann", "s/2 ü"), ("", "")):
        await ask(client, word, user=user, session=session)
    users = (await client.get("/api/users")).json()["data"]
    assert [(row["user"], row["requests"]) for row in users] == [("", 1), ("ann", 3), ("bob", 1)]
    assert users[1]["hit_rate"] == pytest.approx(2 / 3)
    first = (await client.get("/api/sessions", params={"limit": 2})).json()
    second = (await client.get("/api/sessions", params={"limit": 2, "cursor": first["next"]})).json()
    assert [(row["session"], row["user"]) for row in first["data"] + second["data"]] == [
        ("s/2 ü", "ann"),
        ("s1", "bob"),
        ("s1", "ann"),
    ]
    assert second["next"] is None
    ann = (await client.get("/api/users/ann")).json()
    assert [row["session"] for row in ann["sessions"]] == ["s/2 ü", "s1"]
    session = (await client.get("/api/sessions/s%2F2%20%C3%BC")).json()
    assert (session["requests"], session["users"][0]["user"]) == (1, "ann")
    assert (await client.get("/api/users/")).json()["requests"] == 1
    mine = (await client.get("/api/sessions", params={"user_id": "ann"})).json()["data"]
    assert {row["user"] for row in mine} == {"ann"}


async def test_a_person_is_erased_everywhere(server: Proxy, client: httpx.AsyncClient) -> None:
    word = marker()
    for user in ("ann", "bob", "ann", "ann"):
        await ask(client, f"{word} of {user}", user=user)
    assert len(await listed(client, q=word)) == 4
    assert (await client.delete("/api/history", params={"user_id": "ann"})).json() == {"deleted": 3}
    assert len(await listed(client, q=word)) == 1
    assert await listed(client, user_id="ann") == []
    assert await listed(client, q=f"{word} ann") == []
    assert (await client.get("/api/users/ann")).status_code == 404
    assert (await client.get("/api/sessions/s1")).json()["requests"] == 1
    assert (await client.delete("/api/history", params={"session_id": "s1"})).json() == {"deleted": 1}
    assert (await client.get("/api/users")).json()["data"] == []


@pytest.mark.parametrize("query", ["", "?model=m", "?user_id=a&limit=5", "?user_id=", "?user_id=a&session_id="])
async def test_nothing_is_erased_by_mistake(http: httpx.AsyncClient, query: str) -> None:
    assert (await http.delete(f"/api/history{query}")).status_code == 400


async def test_why_a_request_was_a_miss(client: httpx.AsyncClient) -> None:
    word = marker()
    await ask(client, f"{word} at 10:31:02, be nice")
    other = await ask(client, f"{word} at 10:31:59, be nice")
    told = await explained(client, other)
    (difference,) = told["differences"]
    assert (difference["path"], difference["note"]) == (
        "messages[0].content",
        "it looks like a date or a time of day",
    )
    assert [(span["ours"], span["theirs"]) for span in difference["spans"]] == [("59", "02")]
    elsewhere = await ask(client, f"{word} at 10:31:59, be nice", headers={"x-llmproxy-namespace": "n"})
    assert "namespace" in (await explained(client, elsewhere))["because"][-1]
    forced = await ask(client, f"{word} at 10:31:59, be nice", headers={"cache-control": "no-cache"})
    assert "no-cache" in (await explained(client, forced))["because"][0]
    again = await ask(client, f"{word} at 10:31:59, be nice")
    assert (await explained(client, again))["cache"] == "hit"
    await client.post("/admin/cache/flush", json={"all": True})
    flushed = await ask(client, f"{word} at 10:31:59, be nice")
    assert "flushed" in (await explained(client, flushed))["because"][-1]


async def test_a_query_in_the_url_is_part_of_the_key(client: httpx.AsyncClient) -> None:
    body = CHAT.request(marker())
    ids = [(await client.post(f"{CHAT.path}?v={number}", json=body)).headers["x-request-id"] for number in (1, 2)]
    await recorded(client, ids[1])
    told = await explained(client, ids[1])
    assert told["because"][-1].endswith("what differs is the query of the URL.")


async def test_without_history_there_is_nothing_to_ask(upstream: ScriptedUpstream, proxy: MakeProxy) -> None:
    made = proxy(upstream.url, history=False)
    async with httpx.AsyncClient(base_url=made.url, trust_env=False) as client:
        for path in ("history", "history/x", "users", "sessions"):
            answer = await client.get(f"/api/{path}")
            assert (answer.status_code, "LLMPROXY_HISTORY" in answer.text) == (404, True)


async def test_the_hits_of_the_quick_way_are_explained_too(client: httpx.AsyncClient) -> None:
    word = marker()
    ids = [await ask(client, word) for _ in range(4)]
    told = await explained(client, ids[-1])
    assert told["cache"] == "hit"
    assert told["because"][1].startswith(f"An answer was stored under this key by request {ids[0]}")
    assert told["key"]["fields"]
