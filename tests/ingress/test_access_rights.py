"""Who may do what once there are keys: callers ask for answers, the operator reads and flushes."""

import pytest

from tests.conftest import MakeProxy
from tests.scripted import marker
from tests.scripted_upstream import ScriptedUpstream


@pytest.mark.parametrize(
    "target",
    [
        "/api/history",
        "/api/history/some-id",
        "/api/history/some-id/explain",
        "/api/sessions",
        "/api/sessions/s",
        "/api/users",
        "/api/users/ann",
        "/api/cache/stats",
        "/admin/cache/entries/0",
    ],
)
def test_callers_with_keys_are_no_operators(upstream: ScriptedUpstream, proxy: MakeProxy, target: str) -> None:
    made = proxy(upstream.url, api_keys="ann:one,bob:two")
    with made.line() as line:
        assert line.ask("GET", target, [("authorization", "Bearer two")]).status == 403


@pytest.mark.parametrize(
    "target",
    [
        "/api/historyX",
        "/api/history/",
        "/api/history/../../v1/chat/completions",
        "/api/sessions/../../v1/chat/completions",
        "/api/usersX",
        "/api/users/",
        "/api/cache/",
        "/api/cache/../../v1/chat/completions",
        "/v1/models",
    ],
)
def test_nothing_is_passed_through_without_a_key(upstream: ScriptedUpstream, proxy: MakeProxy, target: str) -> None:
    made = proxy(upstream.url, api_keys="ann:one", admin_token="token")
    word = marker()
    with made.line() as line:
        assert line.ask("POST", f"{target}?{word}", body=b"{}").status == 401
    assert upstream.visits(word) == []
