"""Who may do what once there are keys: callers ask for answers, the operator reads and flushes, all else is shut."""

import json
import re
import socket
from collections.abc import Iterator
from itertools import product
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.scripted_upstream import ScriptedUpstream
from tests.server import Proxy

#: what an upstream that the proxy has a key for must never see without a caller's key
MARK = b"x-asked-by-nobody: 1"
OPERATORS = [
    "/api/history",
    "/api/history/some-id",
    "/api/history/some-id/explain",
    "/api/history?format=jsonl&bodies=true",
    "/api/sessions",
    "/api/sessions/s",
    "/api/users",
    "/api/users/ann",
    "/api/cache/stats",
    "/api/performance",
    "/api/health",
    "/admin/jobs",
    "/admin/jobs/task_0",
    "/admin/cache/entries",
    "/admin/cache/entries/0",
    "/admin/cache/groups",
]


@pytest.fixture(scope="module")
def guarded() -> Iterator[ScriptedUpstream]:
    """An upstream of this module's own: whatever of its requests bears the mark came through a door."""
    with ScriptedUpstream() as scripted:
        yield scripted


@pytest.fixture(scope="module")
def shut(guarded: ScriptedUpstream, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Proxy]:
    """With keys, answers that all of them share, a key for the upstream, and no admin token."""
    yield from _started(guarded, tmp_path_factory.mktemp("shut"), cache_scope="shared")


@pytest.fixture(scope="module")
def tokened(guarded: ScriptedUpstream, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Proxy]:
    """With keys and an admin token."""
    yield from _started(guarded, tmp_path_factory.mktemp("tokened"), admin_token="t0ken")


def _started(upstream: ScriptedUpstream, folder: Path, **settings: object) -> Iterator[Proxy]:
    settings |= {"api_keys": "ann:one,bob:two", "upstream_api_key": "sk-upstream"}
    with Proxy(upstream.url, database=folder / "llmproxy.db", **settings) as proxy:
        yield proxy
    assert "Traceback" not in proxy.log, proxy.log


def ask(proxy: Proxy, method: bytes, target: bytes, *headers: bytes, host: bytes = b"127.0.0.1") -> tuple[int, bytes]:
    """One request on a connection of its own, byte by byte; status 0 where nothing was answered."""
    lines = [method + b" " + target + b" HTTP/1.1", b"host: " + host, MARK, b"connection: close", *headers]
    with socket.create_connection(("127.0.0.1", proxy.port), 30) as line:
        line.sendall(b"\r\n".join(lines) + b"\r\n\r\n")
        answer = b"".join(iter(lambda: line.recv(65536), b""))
    found = re.match(rb"HTTP/1\.1 (\d{3}) ", answer)
    return (int(found[1]) if found else 0), answer.partition(b"\r\n\r\n")[2]


def seen(upstream: ScriptedUpstream) -> list[tuple[str, bytes]]:
    """What reached the upstream of the requests of ``ask``."""
    return [(visit.method, visit.target) for visit in upstream.journal.visits() if visit.header("x-asked-by-nobody")]


@pytest.mark.parametrize("target", OPERATORS)
def test_callers_with_keys_are_no_operators(shut: Proxy, tokened: Proxy, target: str) -> None:
    """Whatever the cache shares: what the operator reads is everybody's."""
    for credentials in ((b"authorization: Bearer two",), (b"x-api-key: two",), ()):
        assert ask(shut, b"GET", target.encode(), *credentials)[0] == 403
        assert ask(tokened, b"GET", target.encode(), *credentials)[0] == 401


def test_flushing_and_ending_jobs_are_the_operators_too(shut: Proxy, tokened: Proxy) -> None:
    for target in (b"/admin/cache/flush", b"/admin/jobs/task_0/cancel", b"/admin/jobs/task_0/retry", b"/admin/unknown"):
        key = (b"authorization: Bearer one", b"content-length: 0")
        assert ask(shut, b"POST", target, *key)[0] == 403
        assert ask(tokened, b"POST", target, *key)[0] == 401
    assert ask(tokened, b"POST", b"/admin/unknown", b"authorization: Bearer t0ken", b"content-length: 0")[0] == 404


BASES = [
    b"/ui",
    b"/ui/",
    b"/health",
    b"/metrics",
    b"/ready",
    b"/admin/",
    b"/admin/cache/flush",
    b"/api/history",
    b"/api/history/",
    b"/api/sessions/",
    b"/api/users/",
    b"/api/health",
    b"/v1/models",
    b"/v1/chat/completions",
    b"/api/tasks",
    b"/anything",
]
TAILS = [
    b"%0Ax",
    b"%0a",
    b"%0D%0A",
    b"%0A/../../v1/chat/completions",
    b"/%0A",
    b"/%0A/../../v1/chat/completions",
    b"%00",
    b"/%00",
    b"/../v1/chat/completions",
    b"/..%2fv1%2fchat%2fcompletions",
    b"%2F..%2Fv1%2Fmodels",
    b"%252F..",
    b";",
    b";/../v1/models",
    b"//",
    b"//v1/models",
    b"\\..\\v1\\models",
    b"%5C..%5C",
    b"?/ui/",
    b"%3F",
    b"%23",
    b"X",
    b"%C3%A9",
    b"%FF%FE",
    b"%E2%80%A8",
    b"/" + b"x" * 20_000,
    b".",
    b"/.",
    b"%20",
]


def forms(base: bytes, tail: bytes) -> list[bytes]:
    """One path, and the ways in which a request's first line may say it."""
    path = base + tail
    return [path, b"http://127.0.0.1" + path, b"http://elsewhere.example" + path, b"//" + path[1:], path.upper()]


@pytest.mark.parametrize("base", BASES, ids=bytes.decode)
def test_no_odd_path_opens_a_door(guarded: ScriptedUpstream, tokened: Proxy, base: bytes) -> None:
    for tail, method in product(TAILS, (b"GET", b"POST")):
        for target in forms(base, tail):
            length = (b"content-length: 0",) if method == b"POST" else ()
            status, _ = ask(tokened, method, target, *length)
            # the same request from an open route's own path is answered, and holds nothing
            ours = re.fullmatch(rb"(http://[a-z0-9.]+)?(/(health|ready|metrics|ui)(\?.*)?|/ui/\?.*)", target)
            assert (400 <= status < 500) or (ours and status == 200), (method, target[:100], status)
    assert seen(guarded) == []


@pytest.mark.parametrize(
    "method", [b"HEAD", b"OPTIONS", b"PUT", b"PATCH", b"DELETE", b"TRACE", b"CONNECT", b"PROPFIND"]
)
def test_no_method_opens_a_door(guarded: ScriptedUpstream, shut: Proxy, tokened: Proxy, method: bytes) -> None:
    for proxy, base in product((shut, tokened), (*BASES, b"*", b"127.0.0.1:443", b"http://127.0.0.1")):
        status, _ = ask(proxy, method, base, b"content-length: 0")
        allowed = method == b"HEAD" and base in (b"/health", b"/ready", b"/metrics", b"/ui", b"/ui/")
        assert (400 <= status < 500) or (allowed and status == 200), (method, base, status)
    assert seen(guarded) == []


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.sampled_from([b"GET", b"POST", b"PUT", b"OPTIONS"]),
    st.sampled_from(BASES),
    st.lists(st.sampled_from([b"%", b"/", b"..", b"%0A", b"%2f", b";", b"a", b"\\", b"?", b"%c3"]), max_size=6),
)
def test_no_mixture_opens_a_door(
    guarded: ScriptedUpstream, tokened: Proxy, method: bytes, base: bytes, parts: list[bytes]
) -> None:
    ask(tokened, method, base + b"".join(parts), b"content-length: 0")
    assert seen(guarded) == []


WRONG = [
    (),
    (b"authorization: Bearer ",),
    (b"authorization: Bearer",),
    (b"authorization:",),
    (b"authorization: Basic one",),
    (b"authorization: Bearer six",),
    (b"authorization: Bearer on",),
    (b"authorization: Bearer one two",),
    (b"authorization: Bearerone",),
    (b"authorization: Bearer t0ken",),
    (b"authorization: Bearer sk-upstream",),
    (b"authorization: Bearer ann:one",),
    (b"authorization: ann",),
    (b"authorization: Bearer one", b"authorization: Bearer two"),
    (b"authorization: Bearer one", b"authorization: Bearer one"),
    (b"authorization: Bearer six", b"authorization: Bearer one"),
    (b"authorization: Bearer one", b"x-api-key: two"),
    (b"x-api-key: ",),
    (b"api-key: six",),
    (b"x-api-key: one, two",),
    (b"proxy-authorization: Bearer one",),
    (b"cookie: authorization=one",),
    (b"authorization: Bearer \xc3\xa9\xff",),
]


@pytest.mark.parametrize("headers", WRONG, ids=repr)
def test_what_is_no_key_lets_nobody_in(guarded: ScriptedUpstream, tokened: Proxy, headers: tuple[bytes, ...]) -> None:
    assert ask(tokened, b"GET", b"/some/path", *headers)[0] == 401
    assert ask(tokened, b"GET", b"/api/tasks", *headers)[0] == 401
    assert seen(guarded) == []


@pytest.mark.parametrize(
    "headers",
    [
        (b"authorization: Bearer one",),
        (b"Authorization: bearer one",),
        (b"authorization: BEARER   one  ",),
        (b"authorization: one",),
        (b"x-api-key: one",),
        (b"Api-Key: one",),
        (b"x-goog-api-key: one",),
        (b"authorization: Bearer one", b"x-api-key: one"),
        (b"authorization: Bearer placeholder", b"x-api-key: one"),
    ],
    ids=repr,
)
def test_every_sdks_header_presents_the_key(tokened: Proxy, headers: tuple[bytes, ...]) -> None:
    assert ask(tokened, b"GET", b"/api/tasks", *headers)[0] == 200


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ((b"authorization: bearer  t0ken ",), 200),
        ((b"authorization: Bearer t0ken", b"authorization: Bearer t0ken"), 401),
        ((b"authorization: Bearer six", b"authorization: Bearer t0ken"), 401),
        ((b"authorization: t0ken",), 401),
        ((b"authorization: Basic t0ken",), 401),
        ((b"authorization: Bearer",), 401),
        ((b"x-api-key: t0ken",), 401),
        ((b"authorization: Bearer T0KEN",), 401),
    ],
    ids=repr,
)
def test_the_token_is_one_bearer_token(tokened: Proxy, headers: tuple[bytes, ...], status: int) -> None:
    assert ask(tokened, b"GET", b"/api/cache/stats", *headers)[0] == status


@pytest.mark.parametrize("method", [b"TRACE", b"CONNECT"])
def test_what_would_tell_the_upstreams_key_is_not_relayed(
    guarded: ScriptedUpstream, tokened: Proxy, method: bytes
) -> None:
    before = len(seen(guarded))
    for target in (b"/", b"/some/path", b"/v1/models", b"/v1/chat/completions", b"/health", b"*", b"127.0.0.1:443"):
        status, body = ask(tokened, method, target, b"authorization: Bearer one")
        assert status in (400, 405), (method, target)
        assert b"sk-upstream" not in body
    assert len(seen(guarded)) == before


def test_the_methods_that_are_relayed_are_named(tokened: Proxy) -> None:
    with tokened.line() as line:
        answer = line.ask("TRACE", "/some/path", [("authorization", "Bearer one")])
    assert answer.status == 405
    allowed = str(answer.first("allow")).split(", ")
    assert {"GET", "POST", "DELETE"} <= {*allowed}
    assert {"TRACE", "CONNECT"}.isdisjoint(allowed)
    assert json.loads(answer.body)["error"]["code"] == "method_not_allowed"


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ((b"host: elsewhere.example",), 400),
        ((b"host: 127.0.0.1",), 400),
        ((b"origin: http://elsewhere.example", b"origin: http://127.0.0.1"), 403),
        ((b"origin: http://127.0.0.1", b"origin: http://elsewhere.example"), 403),
        ((b"sec-fetch-site: cross-site", b"sec-fetch-site: same-origin"), 403),
        ((b"sec-fetch-site: none", b"sec-fetch-site: same-site"), 403),
        ((b"origin: http://127.0.0.1", b"sec-fetch-site: same-origin"), 200),
    ],
    ids=repr,
)
def test_what_is_said_twice_about_the_senders_site_counts_twice(
    tokened: Proxy, headers: tuple[bytes, ...], status: int
) -> None:
    assert ask(tokened, b"GET", b"/health", *headers)[0] == status
