"""Who may use which route: decided from the path as it was parsed, and closed unless a route says otherwise."""

from urllib.parse import unquote

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from starlette.types import Scope

from llmproxy.app.routes import route_table
from llmproxy.config.load import load
from llmproxy.middleware.routing import AccessLevel, RouteTable
from llmproxy.wire.errors import OWN_API

SETTINGS = load({}, {}).settings
TABLE = route_table(SETTINGS)
BARE = route_table(load({"jobs": False}, {}).settings)

#: all that needs no key. A route that is added here is open to the world: it must hold nobody's data
OPEN = {"/", "/health", "/ready", "/metrics", "/ui", "/ui/{path:path}", "/openapi.json", "/docs", "/docs/{path:path}"}
#: all that needs the admin token where there is one
OPERATORS = {
    "/admin/cache/entries",
    "/admin/cache/entries/{key}",
    "/admin/cache/flush",
    "/admin/cache/groups",
    "/admin/jobs",
    "/admin/jobs/{id}",
    "/admin/jobs/{id:path}",
    "/admin/jobs/{id}/cancel",
    "/admin/jobs/{id}/retry",
    "/api/cache/stats",
    "/api/health",
    "/api/history",
    "/api/history/{request_id:path}",
    "/api/history/{request_id:path}/explain",
    "/api/performance",
    "/api/performance/series",
    "/api/sessions",
    "/api/sessions/{id:path}",
    "/api/users",
    "/api/users/{id:path}",
}
METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "PROPFIND", "get")
#: how a path may be told otherwise than it is, before it is decoded
ODD = ("%0A", "%0a/..", "/%0Ax", "%00", "/", "//", "/.", "/..", "/../", "%2F", "%2f..%2f", ";x", ";/", "\\", "%5C..")
ODD_TOO = ("%3F", "%23", " ", "%20", "%C3%A9", "%FF", "X", "/" + "x" * 70_000, "%25", "\t", "%E2%80%A8", "\u2028")


def resolve(method: str, path: str, table: RouteTable = TABLE) -> AccessLevel:
    scope: Scope = {"type": "http", "method": method, "path": path, "query_string": b"", "headers": []}
    return table.resolve(scope).access


def routed() -> list[tuple[str, AccessLevel]]:
    return [(route.path, group.access) for group in (*TABLE.groups, *BARE.groups) for route in group.routes]


def test_every_route_has_the_access_that_is_listed_here() -> None:
    assert {path for path, access in routed() if access is AccessLevel.OPEN} == OPEN
    assert {path for path, access in routed() if access is AccessLevel.OPERATOR} == OPERATORS
    rest = {path for path, access in routed() if access is AccessLevel.CALLER}
    assert rest.isdisjoint(OPEN | OPERATORS)


@pytest.mark.parametrize("method", METHODS)
def test_every_path_resolves_to_its_routes_access(method: str) -> None:
    for path, access in routed():
        if path != "/":
            assert resolve(method, path) is access, path


@pytest.mark.parametrize("method", METHODS)
def test_the_root_is_open_to_browsers_that_ask_for_a_page_and_to_nobody_else(method: str) -> None:
    scope: Scope = {"type": "http", "method": method, "path": "/", "headers": [(b"accept", b"text/html")]}
    is_page = method in ("GET", "HEAD")
    assert (TABLE.resolve({**scope, "query_string": b""}).access is AccessLevel.OPEN) is is_page
    assert (TABLE.resolve({**scope, "query_string": b"upstream"}).access) is AccessLevel.CALLER
    assert resolve(method, "/") is AccessLevel.CALLER


def is_open(path: str) -> bool:
    """Said once more, by hand: no regular expression, no table."""
    pages = ("/ui", "/docs", "/openapi.json")
    return path in ("/health", "/ready", "/metrics", *pages) or path.startswith(("/ui/", "/docs/"))


@given(
    st.sampled_from(METHODS),
    st.lists(st.sampled_from([*(path for path, _ in routed()), *ODD, *ODD_TOO]), min_size=1, max_size=5).map("".join)
    | st.text().map("/".__add__),
)
@example("GET", "/health%0A")
@example("POST", "/ui%0A")
@example("GET", "/admin/%0Ax")
@example("GET", "/api/history%0A")
def test_what_is_not_open_letter_by_letter_needs_a_key(method: str, target: str) -> None:
    path = unquote(target)
    assert (resolve(method, path) is AccessLevel.OPEN) <= is_open(path)
    assert (resolve(method, path, BARE) is AccessLevel.OPEN) <= is_open(path)


@given(st.sampled_from(METHODS), st.text(min_size=1))
@example("GET", "\n")
@example("POST", "\n/../../v1/chat/completions")
@example("DELETE", "cache/flush\n")
def test_all_below_an_operators_tree_is_the_operators(method: str, rest: str) -> None:
    for tree in ("/admin/", "/api/cache/", "/api/health/", "/api/history/", "/api/performance/", "/api/users/"):
        assert resolve(method, tree + rest) is AccessLevel.OPERATOR


def test_our_part_of_api_is_the_same_for_routes_and_errors() -> None:
    trees = {tree for group in TABLE.groups for tree in group.trees}
    assert trees == {"/admin", *(f"/api/{name}" for name in OWN_API)}
    assert trees == {tree for group in BARE.groups for tree in group.trees}
