"""A base URL that cannot be right is refused at the start, and one that is not right is said."""

import httpx
import pytest

from llmproxy.config.load import ConfigError, load
from tests.conftest import MakeProxy
from tests.scripted_upstream import ScriptedUpstream
from tests.timeouts import WAIT_SECONDS


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("http://", "has no host"),
        ("https:///v1", "has no host"),
        ("http://:8080", "has no host"),
        ("http://host:0", "has no port from 1 to 65535"),
        ("http://host:70000", "has no port from 1 to 65535"),
        ("http://host:port", "has no port from 1 to 65535"),
        ("http://host/v1?key=1", "goes on after its path"),
        ("http://host/#x", "goes on after its path"),
        ("host:8080", "is no http:// or https:// URL"),
        ("http://[::1", "Invalid IPv6 URL"),
    ],
)
def test_what_is_no_base_url_is_refused(url: str, reason: str) -> None:
    with pytest.raises(ConfigError) as refused:
        load({"upstream": (url,)}, {})
    assert str(refused.value).startswith(f"upstream = ['{url}'] (flag): ")
    assert reason in str(refused.value)


@pytest.mark.parametrize(
    ("url", "kept"),
    [
        ("http://host/v1/", "http://host"),
        ("https://me:pw@host:1/openai/v1", "https://me:pw@host:1/openai"),
        ("http://[::1]:8080", "http://[::1]:8080"),
    ],
)
def test_what_is_one_is_kept_without_v1(url: str, kept: str) -> None:
    assert load({"upstream": (url,)}, {}).settings.upstream == (kept,)


def test_a_path_that_is_not_there_is_said_at_the_start_and_by_ready(
    upstream: ScriptedUpstream, proxy: MakeProxy
) -> None:
    said = "/v1/models answers 404 there: is the base URL right (with its path /wrong/path)?"
    with ScriptedUpstream(lacks=frozenset({"/wrong/path/v1/models"})) as other:
        wrong = f"{other.url}/wrong/path"
        own = proxy(wrong, upstream.url)
        with httpx.Client(base_url=own.url, trust_env=False, timeout=WAIT_SECONDS) as http:
            ready = http.get("/ready")
            assert ready.status_code == 200
            assert ready.json()["warnings"] == [f"upstream {wrong}: {said}"]
            servers = {each["name"]: each for each in http.get("/api/health").json()["upstreams"]}
            assert servers[wrong]["warning"] == said
            assert servers[upstream.url]["warning"] is None
        assert f"openai at {wrong} ({said}), openai at {upstream.url}" in own.log
        own.stop()
