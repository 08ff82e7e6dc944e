"""``/admin/cache/entries`` and ``/admin/cache/groups`` from outside, on both databases."""

import pytest

from tests.conftest import MakeProxy
from tests.databases import PostgresServer
from tests.scripted import marker
from tests.scripted_upstream import ScriptedUpstream
from tests.server import Proxy
from tests.ui.asking import chat, get


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


WRONG = ("limit=0", "limit=501", "order=oldest", "prefix=xyz", "endpoint=none", "cursor=3", "what=1", "tag=a&tag=b")


@pytest.mark.parametrize("query", WRONG)
def test_what_is_not_understood_is_refused(front: Proxy, query: str) -> None:
    error = get(front, f"/admin/cache/entries?{query}", status=400)["error"]
    assert error["param"] == query.partition("=")[0]


def test_without_a_tier_on_disk_there_is_nothing_to_list(proxy: MakeProxy, upstream: ScriptedUpstream) -> None:
    server = proxy(upstream.url, cache_disk_bytes=0)
    for path in ("entries", "groups"):
        assert "LLMPROXY_CACHE_DISK_BYTES" in get(server, f"/admin/cache/{path}", status=404)["error"]["message"]
