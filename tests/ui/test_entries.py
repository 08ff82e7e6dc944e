"""``/admin/cache/entries`` and ``/admin/cache/groups`` from outside, on both databases."""

import json

import pytest

from tests.conftest import MakeProxy
from tests.databases import PostgresServer
from tests.scripted import marker
from tests.scripted_upstream import ScriptedUpstream
from tests.server import Proxy
from tests.ui.asking import chat, get, request_id, wait_for_entries


@pytest.fixture(params=["sqlite", "postgresql"])
def server(request: pytest.FixtureRequest, proxy: MakeProxy, upstream: ScriptedUpstream) -> Proxy:
    if request.param == "sqlite":
        return proxy(upstream.url)
    postgres: PostgresServer = request.getfixturevalue("postgres")
    return proxy(upstream.url, database_url=postgres.create())


def test_entries_page_by_page_and_in_groups(server: Proxy) -> None:
    for tags in ("a", "a,b", "c"):
        chat(server, marker(), headers={"x-llmproxy-tags": tags, "x-llmproxy-namespace": "lab"})
    first = get(server, "/admin/cache/entries?limit=2&order=largest&namespace=lab")
    second = get(server, f"/admin/cache/entries?limit=2&order=largest&namespace=lab&cursor={first['next']}")
    rows = first["data"] + second["data"]
    assert (len(first["data"]), len(second["data"]), second["next"]) == (2, 1, None)
    assert sorted(row["tags"] for row in rows) == [["a"], ["a", "b"], ["c"]]
    assert {row["model"] for row in get(server, "/admin/cache/entries?tag=a&endpoint=chat")["data"]} == {"scripted"}
    (one,) = get(server, f"/admin/cache/entries?prefix={rows[0]['key'][:16]}")["data"]
    assert one["key"] == rows[0]["key"]
    groups = get(server, "/admin/cache/groups")
    assert {each["name"]: each["entries"] for each in groups["tags"]} == {"a": 2, "b": 1, "c": 1}
    size = sum(row["bytes"] for row in rows)
    assert groups["models"] == [{"entries": 3, "bytes": size, "name": "scripted", "below": None}]


def test_an_entry_says_what_was_asked_and_how_often(server: Proxy) -> None:
    word = marker()
    for _ in range(3):
        chat(server, f"what of the okapi {word}")
    newest = request_id(chat(server, f"what of the okapi {word}"))
    chat(server, f"what of the zebra {word}")
    (found,) = wait_for_entries(server, "q=okapi", entries=1, hits=3)
    assert (found["question"], found["hits"], found["request_id"]) == (f"what of the okapi {word}", 3, newest)
    assert found["last_used"] >= found["created"]
    assert get(server, "/admin/cache/entries?q=unheard")["data"] == []
    assert len(get(server, "/admin/cache/entries")["data"]) == 2
    one = get(server, f"/admin/cache/entries/{found['key']}")
    assert {name: one[name] for name in ("question", "hits", "request_id")} == {
        name: found[name] for name in ("question", "hits", "request_id")
    }


def test_the_question_goes_with_who_is_erased(server: Proxy) -> None:
    chat(server, marker(), headers={"x-llmproxy-user": "ada"})
    (before,) = wait_for_entries(server, "limit=5", entries=1, hits=0)
    with server.line() as line:
        assert json.loads(line.ask("DELETE", "/api/history?user_id=ada").body) == {"deleted": 1}
    (after,) = get(server, "/admin/cache/entries")["data"]
    assert after["key"] == before["key"]
    assert (after["question"], after["request_id"], after["exchange"]) == ("", None, None)


def test_without_a_history_entries_are_listed_all_the_same(proxy: MakeProxy, upstream: ScriptedUpstream) -> None:
    server = proxy(upstream.url, history=False)
    chat(server, marker())
    (found,) = get(server, "/admin/cache/entries")["data"]
    assert (found["question"], found["hits"], found["request_id"]) == (None, None, None)
    assert get(server, f"/admin/cache/entries/{found['key']}")["question"] is None
    assert "LLMPROXY_HISTORY" in get(server, "/admin/cache/entries?q=okapi", status=404)["error"]["message"]


WRONG = (
    "limit=0",
    "limit=501",
    "order=oldest",
    "prefix=xyz",
    "endpoint=none",
    "cursor=3",
    "what=1",
    "q=%20",
    "tag=a&tag=b",
)


@pytest.mark.parametrize("query", WRONG)
def test_what_is_not_understood_is_refused(front: Proxy, query: str) -> None:
    error = get(front, f"/admin/cache/entries?{query}", status=400)["error"]
    assert error["param"] == query.partition("=")[0]


def test_without_a_tier_on_disk_there_is_nothing_to_list(proxy: MakeProxy, upstream: ScriptedUpstream) -> None:
    server = proxy(upstream.url, cache_disk_bytes=0)
    for path in ("entries", "groups"):
        assert "LLMPROXY_CACHE_DISK_BYTES" in get(server, f"/admin/cache/{path}", status=404)["error"]["message"]
