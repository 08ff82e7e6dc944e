"""``llmproxy cache`` against a small server that answers as the proxy's API does."""

import io
import json
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from llmproxy.cli import health
from llmproxy.cli.cache import lines, seconds
from tests.cli.program import Program

Asked = tuple[str, str, dict[str, object] | None, str | None]


@dataclass
class Api:
    """What was asked: method, path, body, authorization. ``answers`` maps paths to status and document."""

    url: str = ""
    asked: list[Asked] = field(default_factory=list)
    answers: dict[str, tuple[int, object]] = field(default_factory=dict)


@pytest.fixture
def api() -> Iterator[Api]:
    api = Api()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            size = int(self.headers.get("content-length") or 0)
            body = json.loads(self.rfile.read(size)) if size else None
            api.asked.append((self.command, self.path, body, self.headers.get("authorization")))
            status, document = api.answers.get(self.path, (200, {"flushed": 3, "bytes": 1024}))
            self.send_response(status)
            self.end_headers()
            self.wfile.write(document if isinstance(document, bytes) else json.dumps(document).encode())

        do_POST = do_GET

        def log_message(self, format: str, *arguments: object) -> None:
            """Quiet."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        api.url = f"http://127.0.0.1:{server.server_address[1]}"
        yield api
        server.shutdown()
        thread.join(60)


STATS: dict[str, dict[str, object]] = {
    "since_start": {"hits": 12345, "misses": 5, "joins": 2, "stale": 1, "bypasses": 3, "hit_rate": 0.999},
    "last_5_minutes": {"hits": 0, "misses": 0, "joins": 0, "stale": 0, "bypasses": 0, "hit_rate": None},
    "last_60_minutes": {"hits": 40, "misses": 5, "joins": 0, "stale": 0, "bypasses": 0, "hit_rate": 0.5},
    "saved": {"upstream_seconds": 600.0, "prompt_tokens": 1000, "completion_tokens": 20},
    "tiers": {
        "memory": {
            "entries": 2,
            "bytes": 1_500_000,
            "oldest": None,
            "hits": 12000,
            "evictions": {"size": 1, "bytes": 2},
        },
        "sql": {"entries": 3, "bytes": 0, "oldest": 60.0, "hits": 300, "evictions": {}},
    },
}


def test_stats_are_tables_for_people(llmproxy: Program, api: Api) -> None:
    api.answers["/api/cache/stats"] = (200, STATS)
    out = llmproxy("cache", "stats", "--url", api.url).out
    lines = [line.split() for line in out.splitlines()]
    assert ["since", "start", "12,345", "5", "2", "1", "3", "99.9%"] in lines
    assert ["last", "5", "minutes", "0", "0", "0", "0", "0", "–"] in lines
    assert "saved: 10 min of generation, 1,000 prompt tokens, 20 completion tokens" in out
    assert ["memory", "2", "1.50", "12,000", "3", "–"] in lines
    assert ["sql", "3", "0.00", "300", "0", "1970-01-01", "00:01", "UTC"] in lines
    assert "embeddings: 45 more hits" in out


def test_stats_tell_of_embeddings_only_where_there_were_some(llmproxy: Program, api: Api) -> None:
    api.answers["/api/cache/stats"] = (200, {**STATS, "since_start": {**STATS["since_start"], "hits": 12300}})
    assert "embeddings" not in llmproxy("cache", "stats", "--url", api.url).out


def test_stats_as_json_are_the_apis(llmproxy: Program, api: Api) -> None:
    api.answers["/api/cache/stats"] = (200, STATS)
    assert json.loads(llmproxy("cache", "stats", "--json", "--url", api.url).out) == STATS


def test_stats_of_another_version_are_one_line_and_1(llmproxy: Program, api: Api) -> None:
    api.answers["/api/cache/stats"] = (200, {"since_start": {"hits": 1}})
    outcome = llmproxy("cache", "stats", "--url", api.url)
    assert (outcome.code, outcome.err.count("\n")) == (1, 1)
    assert "not understood" in outcome.err


@pytest.mark.parametrize(
    ("spent", "shown"), [(0.0, "0 ms"), (119.9, "119.9 s"), (3600.0, "60 min"), (36_000.0, "10.0 h")]
)
def test_saved_time_has_the_unit_that_fits(spent: float, shown: str) -> None:
    assert f"saved: {shown} of" in "\n".join(lines({**STATS, "saved": {**STATS["saved"], "upstream_seconds": spent}}))


def test_an_entry_is_shown_and_its_key_is_quoted(llmproxy: Program, api: Api) -> None:
    api.answers["/admin/cache/entries/ab%2F1"] = (200, {"model": "é"})
    outcome = llmproxy("cache", "show", "ab/1", "--url", api.url)
    assert json.loads(outcome.out) == {"model": "é"}


def test_selectors_arrive_as_the_api_names_them(llmproxy: Program, api: Api) -> None:
    outcome = llmproxy(
        *(
            "cache",
            "flush",
            "--url",
            api.url,
            "--key",
            "k",
            "--prefix",
            "ab",
            "--model",
            "m",
            "--namespace",
            "n",
        ),
        *("--tag", "a", "--tag", "b", "--endpoint", "chat", "--older-than", "2h"),
    )
    assert outcome.code == 0
    assert outcome.out == "removed 3 entries (1,024 bytes)\n"
    assert api.asked == [
        (
            "POST",
            "/admin/cache/flush",
            {
                "key": "k",
                "prefix": "ab",
                "model": "m",
                "namespace": "n",
                "tags": ["a", "b"],
                "endpoint": "chat",
                "older_than": 7200.0,
                "dry_run": False,
            },
            None,
        )
    ]


def test_all_asks_first_and_goes_on_only_with_a_yes(
    llmproxy: Program, api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO("n\ny\n"))
    outcome = llmproxy("cache", "flush", "--all", "--url", api.url)
    assert outcome.code == 1
    assert outcome.err.endswith("llmproxy: stopped\n")
    assert [body for _, _, body, _ in api.asked] == [{"all": True, "dry_run": True}]
    assert llmproxy("cache", "flush", "--all", "--url", api.url).code == 0
    assert api.asked[-1][2] == {"all": True, "dry_run": False}


def test_where_nobody_can_answer_nothing_is_removed(
    llmproxy: Program, api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO())
    outcome = llmproxy("cache", "flush", "--all", "--url", api.url)
    assert outcome.code == 1
    assert outcome.err.splitlines()[-1] == "llmproxy: stopped"
    assert [body for _, _, body, _ in api.asked] == [{"all": True, "dry_run": True}]


def test_a_yes_given_beforehand_is_not_asked_for(llmproxy: Program, api: Api) -> None:
    assert llmproxy("cache", "flush", "--all", "--yes", "--url", api.url).code == 0
    assert [body for _, _, body, _ in api.asked] == [{"all": True, "dry_run": False}]


def test_a_dry_run_removes_nothing(llmproxy: Program, api: Api) -> None:
    outcome = llmproxy("cache", "flush", "--all", "--dry-run", "--url", api.url)
    assert outcome.out == "would remove 3 entries (1,024 bytes)\n"
    assert [body for _, _, body, _ in api.asked] == [{"all": True, "dry_run": True}]


@pytest.mark.parametrize("arguments", [[], ["--all", "--model", "m"], ["--older-than", "soon"]])
def test_a_flush_says_exactly_what_it_means(llmproxy: Program, api: Api, arguments: list[str]) -> None:
    assert llmproxy("cache", "flush", "--url", api.url, *arguments).code == 2
    assert api.asked == []


def test_the_admin_token_is_sent(llmproxy: Program, api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LLMPROXY_ADMIN_TOKEN", "t0ken")
    llmproxy("cache", "flush", "--model", "m", "--url", api.url)
    assert api.asked[-1][3] == "Bearer t0ken"


def test_the_proxy_of_these_settings_is_the_one_asked(
    llmproxy: Program, api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LLMPROXY_PORT", api.url.rsplit(":", 1)[1])
    monkeypatch.setenv("LLMPROXY_HOST", "0.0.0.0")
    monkeypatch.setenv("LLMPROXY_ADMIN_TOKEN", "t0ken")
    assert llmproxy("cache", "stats", "--json").code == 0


@pytest.mark.parametrize(
    ("status", "document", "words"),
    [
        (403, {"error": {"message": "a token is needed"}}, "a token is needed"),
        (404, {"detail": "no such entry"}, "no such entry"),
        (500, {}, "no reason given"),
        (200, b"<html>", "not as llmproxy would"),
        (200, [], "not as llmproxy would"),
        (200, {"flushed": "many"}, "not understood"),
    ],
)
def test_a_refusal_is_one_line_and_1(llmproxy: Program, api: Api, status: int, document: object, words: str) -> None:
    api.answers["/admin/cache/flush"] = (status, document)
    outcome = llmproxy("cache", "flush", "--model", "m", "--url", api.url)
    assert outcome.code == 1
    assert words in outcome.err
    assert outcome.err.count("\n") == 1


def test_the_health_check_is_an_exit_code(llmproxy: Program, api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LLMPROXY_PORT", api.url.rsplit(":", 1)[1])
    health.main()
    assert [path for _, path, _, _ in api.asked] == ["/health"]
    api.answers["/health"] = (503, {"error": {"message": "stopping"}})
    with pytest.raises(SystemExit, match="stopping"):
        health.main()


def test_nobody_there_says_what_to_start(llmproxy: Program) -> None:
    outcome = llmproxy("cache", "stats", "--url", "http://127.0.0.1:1")
    assert outcome.code == 1
    assert "llmproxy serve" in outcome.err


@pytest.mark.parametrize(("age", "value"), [("90", 90), ("90s", 90), ("1.5m", 90), ("24h", 86_400), ("7d", 604_800)])
def test_ages(age: str, value: float) -> None:
    assert seconds(age) == value
