"""``llmproxy explain`` against the running program, and its lines."""

import json
from typing import Any

import httpx
import pytest

from llmproxy.cli.explain import lines
from llmproxy.cli.options import CommandFailed
from tests.cli.program import Program
from tests.conftest import MakeProxy
from tests.scripted import CHAT, marker
from tests.scripted_upstream import ScriptedUpstream

DOCUMENT: dict[str, Any] = {
    "request_id": "req-2",
    "created_at": 160.0,
    "endpoint": "chat",
    "model": "m",
    "status": 200,
    "cache": "miss",
    "reason": "absent",
    "stored": "stored",
    "because": ["Nothing was cached for this request."],
    "key": {
        "digest": "ab12",
        "endpoint": "chat",
        "model": "m",
        "identity": "",
        "scope": "",
        "namespace": "",
        "query": "",
        "fields": {"seed": "1"},
        "excused": {"user": {"value": '"ann"', "why": "names the caller"}},
    },
    "nearest": {"request_id": "req-1", "created_at": 100.0, "similarity": 0.985},
    "compared": 12,
    "differences": [
        {
            "path": "messages[0].content",
            "kind": "text",
            "note": "only white space differs",
            "spans": [{"before": "東京 a", "ours": "\n", "theirs": " \t", "after": "b"}],
        },
        {"path": "x", "kind": "text", "note": "", "spans": [{"before": "a", "ours": "", "theirs": "b", "after": "c"}]},
        {"path": "seed", "kind": "changed", "note": "", "ours": "1", "theirs": "2"},
        {"path": "", "kind": "added", "note": "", "ours": "3"},
    ],
}


def test_the_decisive_characters_are_marked() -> None:
    assert list(lines(DOCUMENT)) == [
        "req-2: MISS (chat, m)",
        "  Nothing was cached for this request.",
        "",
        "key              ab12",
        "endpoint         chat",
        "model            m",
        "identity         –",
        "scope            –",
        "namespace        –",
        "field seed       1",
        "not in it: user  names the caller",
        "",
        "most like it, of 12 earlier ones: req-1, 60.0 s before, 98.5% the same",
        "",
        "messages[0].content (text): only white space differs",
        "  this: 東京 a↵b",
        "              ^",
        "  that: 東京 a →b",
        "              ^^",
        "",
        "x (text)",
        "  this: ac",
        "         |",
        "  that: abc",
        "         ^",
        "",
        "seed (changed)",
        "  this: 1",
        "  that: 2",
        "",
        "the body (added)",
        "  this: 3",
    ]


def test_a_single_earlier_request_is_one() -> None:
    assert "most like it, of 1 earlier one: req-1, 60.0 s before, 98.5% the same" in lines({**DOCUMENT, "compared": 1})


def test_what_would_move_the_cursor_is_replaced() -> None:
    hostile = {**DOCUMENT, "model": "\x1b[2Jm", "because": ["\x1b[31mred"]}
    span = {"before": "\x1b", "ours": "\x07", "theirs": "\r", "after": "\u202e"}
    hostile["differences"] = [{"path": "\x1bp", "kind": "text", "note": "", "spans": [span]}]
    assert not [each for line in lines(hostile) for each in line if not each.isprintable()]


@pytest.mark.parametrize("document", [{}, {**DOCUMENT, "key": None}, {**DOCUMENT, "differences": [{}]}])
def test_another_kind_of_answer_is_a_failure(document: dict[str, Any]) -> None:
    with pytest.raises(CommandFailed, match="not understood"):
        list(lines(document))


def test_a_miss_is_explained(llmproxy: Program, upstream: ScriptedUpstream, proxy: MakeProxy) -> None:
    server, word = proxy(upstream.url), marker()
    with httpx.Client(base_url=server.url, trust_env=False, timeout=60) as client:
        ids = [
            client.post(CHAT.path, json=CHAT.request(f"{word} {colour} sky")).headers["x-request-id"]
            for colour in ("red", "rose")
        ]
    shown = llmproxy("explain", ids[1], "--url", server.url)
    assert shown.code == 0
    told = shown.out.splitlines()
    assert told[0].startswith(f"{ids[1]}: MISS")
    assert "messages[0].content (text)" in told
    marked = told[told.index("messages[0].content (text)") + 1 :]
    at = marked[0].index("rose")
    assert marked[1] == " " * (at + 1) + "^^^"
    assert (marked[2][at:], marked[3]) == ("red sky", " " * (at + 1) + "^^")
    document = json.loads(llmproxy("explain", ids[1], "--json", "--url", server.url).out)
    assert document["nearest"]["request_id"] == ids[0]


def test_an_unknown_id_is_one_line(llmproxy: Program, upstream: ScriptedUpstream, proxy: MakeProxy) -> None:
    server = proxy(upstream.url)
    outcome = llmproxy("explain", "no-such-id", "--url", server.url)
    assert (outcome.code, len(outcome.err.splitlines())) == (1, 1)
    assert "no request with the id 'no-such-id'" in outcome.err
