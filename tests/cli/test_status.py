"""``llmproxy status`` against the running program, and its screen."""

import json
from pathlib import Path
from typing import Any

import httpx
import pytest

from llmproxy.cli.client import understanding
from llmproxy.cli.options import CommandFailed
from llmproxy.cli.status import lines
from tests.cli.program import Program
from tests.conftest import MakeProxy
from tests.scripted import CHAT, marker
from tests.scripted_upstream import ScriptedUpstream
from tests.server import Proxy


def ask_twice(server: Proxy) -> None:
    with httpx.Client(base_url=server.url, trust_env=False, timeout=60) as client:
        prompt = marker()
        for _ in range(2):
            assert client.post(CHAT.path, json=CHAT.request(prompt)).status_code == 200


def test_one_screen(llmproxy: Program, upstream: ScriptedUpstream, front: Proxy) -> None:
    ask_twice(front)
    shown = llmproxy("status", "--url", front.url)
    assert shown.code == 0, shown.err
    told = shown.out.splitlines()
    assert f"at {front.url}: " in told[0]
    assert len(told) <= 24
    assert all(len(line) <= 100 for line in told)
    (server,) = (line.split() for line in told if line.startswith(upstream.url))
    assert server[1:3] == ["openai", "ok"]
    starts = [line.split("  ")[0] for line in told]
    for part in ("database", "memory tier", "sql tier", "jobs", "last 5 minutes", "last hour", "last 24 hours"):
        assert part in starts
    document = json.loads(llmproxy("status", "--url", front.url, "--json").out)
    assert document["performance"]["5m"]["total"]["requests"] >= 2


def test_a_proxy_without_a_model_server_is_a_screen_and_1(llmproxy: Program, proxy: MakeProxy) -> None:
    server = proxy("http://127.0.0.1:1")
    shown = llmproxy("status", "--url", server.url)
    assert shown.code == 1
    assert shown.out.splitlines()[0].endswith(": down")
    assert "http://127.0.0.1:1" in shown.out
    assert shown.err.startswith("llmproxy: no model server answers")


def test_nobody_there_is_one_line(llmproxy: Program) -> None:
    shown = llmproxy("status", "--url", "http://127.0.0.1:1")
    assert (shown.code, shown.out, len(shown.err.splitlines())) == (1, "", 1)


def test_the_operators_token_is_asked_for(llmproxy: Program, upstream: ScriptedUpstream, proxy: MakeProxy) -> None:
    server = proxy(upstream.url, admin_token="s3cret")
    assert "401" in llmproxy("status", "--url", server.url).err
    Path("llmproxy.toml").write_text('admin_token = "s3cret"')
    assert llmproxy("status", "--url", server.url).code == 0


@pytest.mark.parametrize("document", [{}, {"health": {}, "performance": {}}])
def test_another_kind_of_answer_is_a_failure(document: dict[str, Any]) -> None:
    with pytest.raises(CommandFailed, match="not understood"), understanding():
        list(lines("http://x", document))
