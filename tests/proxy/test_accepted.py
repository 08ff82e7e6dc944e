"""Whom a model server refuses gets nothing of what others' requests brought, in any form and by any way."""

from collections.abc import Iterator

import httpx
import pytest

from llmproxy.proxy.credential_memory import AcceptedCredentials
from tests.conftest import MakeProxy
from tests.scripted import CHAT, STREAMING, Endpoint, marker, named
from tests.scripted_upstream import ScriptedUpstream
from tests.server import Proxy

HEADERS = [("authorization", "Bearer {}"), ("x-api-key", "{}"), ("api-key", "{}"), ("x-goog-api-key", "{}")]


def test_who_was_refused_waits_until_they_are_accepted() -> None:
    told: list[None] = []
    known = AcceptedCredentials(refused=lambda: told.append(None))
    assert known.is_accepted("ann", {"one": None})
    known.note("one", "ann", 200)
    known.note("one", "bob", 401)
    assert known.is_accepted("ann", {"one": None})
    assert not known.is_accepted("bob", {"one": None})
    # the server asks for keys: nobody knows of this one
    assert not known.is_accepted("cem", {"one": None})
    assert known.is_accepted("cem", {"two": None})
    known.note("one", "bob", 200)
    assert known.is_accepted("bob", {"one": None})
    known.note("one", "ann", 403)
    assert not known.is_accepted("ann", {"one": None, "two": None})
    assert len(told) == 2


def test_a_servers_own_pages_tell_who_is_accepted() -> None:
    known = AcceptedCredentials(refused=lambda: None)
    assert not known.is_accepted("bob", {"one": False})
    assert known.is_accepted("ann", {"one": True})
    # others were shown the pages since
    assert known.is_accepted("ann", {"one": False})
    # one of two servers that have the model lets everybody in
    assert known.is_accepted("bob", {"one": False, "two": None})
    known.note("one", "ann", 401)
    assert not known.is_accepted("ann", {"one": True})


def test_a_page_that_is_open_accepts_nobody() -> None:
    known = AcceptedCredentials(refused=lambda: None)
    known.note("one", "ann", 401)
    known.note_refusal("one", "bob", 200)
    assert not known.is_accepted("bob", {"one": None})
    known.note_refusal("one", "bob", 403)
    assert not known.is_accepted("bob", {"one": None})


@pytest.mark.parametrize("status", [200, 304, 400, 404, 429, 500, 502, 503])
def test_other_failures_refuse_nobody(status: int) -> None:
    known = AcceptedCredentials(refused=lambda: None)
    known.note("one", "ann", status)
    assert known.is_accepted("ann", {"one": None})
    assert known.is_accepted("bob", {"one": None})


def test_where_nothing_of_the_callers_is_forwarded_nobody_is_refused() -> None:
    known = AcceptedCredentials(refused=lambda: None)
    known.note("one", "", 401)
    assert known.is_accepted("", {"one": None})


@pytest.fixture(scope="module")
def asking(upstream: ScriptedUpstream, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Proxy]:
    """The program in front of a server that checks keys. Not everybody's: a refusal changes what all others get."""
    with Proxy(upstream.url, database=tmp_path_factory.mktemp("asking") / "llmproxy.db") as proxy:
        yield proxy


@pytest.fixture(scope="module")
def apart(upstream: ScriptedUpstream, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Proxy]:
    """The same, with a scope for each credential."""
    with Proxy(upstream.url, database=tmp_path_factory.mktemp("apart") / "llmproxy.db", cache_scope="key") as proxy:
        yield proxy


def ask(proxy: Proxy, endpoint: Endpoint, prompt: str, *headers: tuple[str, str], stream: bool = False) -> str:
    """How it was answered: the word of the cache, or the error's status."""
    body = endpoint.request(prompt, stream=stream)
    answer = httpx.post(proxy.url + endpoint.path, json=body, headers=list(headers), trust_env=False, timeout=60)
    return answer.headers["x-cache"] if answer.status_code == 200 else str(answer.status_code)


@pytest.mark.parametrize("status", [401, 403])
@pytest.mark.parametrize(("name", "form"), HEADERS)
@pytest.mark.parametrize("scope", ["asking", "apart"])
def test_a_refused_key_gets_no_hit(
    request: pytest.FixtureRequest, upstream: ScriptedUpstream, scope: str, name: str, form: str, status: int
) -> None:
    asking: Proxy = request.getfixturevalue(scope)
    word = marker()
    key = (name, form.format(word))
    assert ask(asking, CHAT, f"{word} told", key) == "MISS"
    # the fast path too
    assert [ask(asking, CHAT, f"{word} told", key) for _ in range(3)] == ["HIT", "HIT", "HIT"]
    assert ask(asking, CHAT, f"{word} refused [script:status={status}]", key) == str(status)
    assert ask(asking, CHAT, f"{word} told", key) == "MISS"
    assert len([visit for visit in upstream.visits(word) if b"told" in visit.body]) == 2
    # it was accepted again
    assert [ask(asking, CHAT, f"{word} told", key) for _ in range(3)] == ["HIT", "HIT", "HIT"]


@pytest.mark.parametrize("endpoint", STREAMING, ids=named)
@pytest.mark.parametrize("stream", [False, True])
def test_on_every_endpoint(asking: Proxy, upstream: ScriptedUpstream, endpoint: Endpoint, *, stream: bool) -> None:
    word = marker()
    ann, bob = ("authorization", f"Bearer ann-{word}"), ("authorization", f"Bearer bob-{word}")
    assert ask(asking, endpoint, f"{word} told", ann, stream=stream) in ("MISS", "BYPASS")
    assert ask(asking, CHAT, f"{word} refused [script:status=401]", bob) == "401"
    assert ask(asking, endpoint, f"{word} told", bob, stream=stream) == "MISS"
    assert ask(asking, endpoint, f"{word} told", ann, stream=stream) == "HIT"


def test_embeddings_are_no_exception(asking: Proxy, upstream: ScriptedUpstream) -> None:
    word = marker()
    body = {"model": "scripted", "input": [f"{word} one", f"{word} two"]}
    ann, bob = {"authorization": f"Bearer ann-{word}"}, {"authorization": f"Bearer bob-{word}"}
    with httpx.Client(base_url=asking.url, trust_env=False) as client:
        assert client.post("/v1/embeddings", json=body, headers=ann).headers["x-cache"] == "MISS"
        assert ask(asking, CHAT, f"{word} refused [script:status=401]", *bob.items()) == "401"
        assert client.post("/v1/embeddings", json=body, headers=bob).headers["x-cache"] == "MISS"
    assert len([visit for visit in upstream.visits(word) if b"two" in visit.body]) == 2


def test_nobody_joins_a_call_of_another_who_was_refused(asking: Proxy, upstream: ScriptedUpstream) -> None:
    word = marker()
    bob = ("authorization", f"Bearer bob-{word}")
    assert ask(asking, CHAT, f"{word} refused [script:status=403]", bob) == "403"
    gate = upstream.gate()
    prompt = f"{word} slow [script:gate={gate.name}]"
    with asking.line() as ann, asking.line() as other:
        body = CHAT.request(prompt)
        content = httpx.Request("POST", asking.url, json=body).content
        ann.request("POST", CHAT.path, [("authorization", f"Bearer ann-{word}")], content)
        upstream.journal.wait(f"{word} slow", 1)
        other.request("POST", CHAT.path, [bob], content)
        upstream.journal.wait(f"{word} slow", 2)
        gate.open()
        assert ann.answer().first("x-cache") == "MISS"
        assert other.answer().first("x-cache") == "MISS"


def test_a_stored_answer_is_not_even_given_as_the_only_thing(asking: Proxy) -> None:
    word = marker()
    ann, bob = ("authorization", f"Bearer ann-{word}"), ("authorization", f"Bearer bob-{word}")
    assert ask(asking, CHAT, f"{word} told", ann) == "MISS"
    assert ask(asking, CHAT, f"{word} refused [script:status=401]", bob) == "401"
    assert ask(asking, CHAT, f"{word} told", bob, ("cache-control", "only-if-cached, max-stale")) == "504"


@pytest.mark.parametrize(
    "settings", [{"api_keys": "ann:one,bob:two", "cache_scope": "shared"}, {"upstream_api_key": "sk"}]
)
def test_the_proxys_own_key_is_nobodys_fault(
    upstream: ScriptedUpstream, proxy: MakeProxy, settings: dict[str, str]
) -> None:
    made, word = proxy(upstream.url, **settings), marker()
    ann, bob = ("authorization", "Bearer one"), ("authorization", "Bearer two")
    assert ask(made, CHAT, f"{word} told", ann) == "MISS"
    assert ask(made, CHAT, f"{word} refused [script:status=401]", bob) == "401"
    assert ask(made, CHAT, f"{word} told", bob) == "HIT"


def test_credentials_of_every_kind_keep_answers_apart(apart: Proxy) -> None:
    word = marker()
    callers = [[(name, form.format(key))] for name, form in HEADERS for key in ("key-of-ann", "key-of-bob")]
    callers += [[("authorization", "Basic YW5uOmE=")], [("authorization", "Basic Ym9iOmI=")], []]
    callers += [[("authorization", "Bearer key-of-ann"), ("api-key", "key-of-bob")]]
    seen = [ask(apart, CHAT, word, *caller) for caller in callers]
    # the same secret is the same caller, whatever header it is in
    assert seen == ["MISS", "MISS", *["HIT"] * 6, "MISS", "MISS", "MISS", "MISS"]
    assert [ask(apart, CHAT, word, *caller) for caller in callers] == ["HIT"] * len(callers)


@pytest.mark.parametrize("kind", ["openai", "llamacpp"])
def test_a_server_that_asks_for_a_key_from_the_start_lets_no_wrong_one_have_a_hit(proxy: MakeProxy, kind: str) -> None:
    ann, eve, cem = ("authorization", "Bearer ann"), ("authorization", "Bearer eve"), ("authorization", "Bearer cem")
    with ScriptedUpstream(kind) as checking:
        checking.keys = ("ann", "cem")
        made, word = proxy(checking.url), marker()
        assert ask(made, CHAT, word, ann) == "MISS"
        assert ask(made, CHAT, word, ann) == "HIT"
        for _ in range(2):
            assert ask(made, CHAT, word, eve) == "401"
            assert ask(made, CHAT, word) == "401"
        # the server's own pages tell who else is let in
        assert [ask(made, CHAT, word, cem) for _ in range(2)] == ["HIT", "HIT"]
        assert ask(made, CHAT, word, ann) == "HIT"
        # after a restart too
        made.stop()
        made.start()
        assert ask(made, CHAT, word, eve) == "401"
        assert ask(made, CHAT, word, ann) == "HIT"


def test_a_server_that_is_away_is_no_server_that_refuses(proxy: MakeProxy) -> None:
    with ScriptedUpstream() as away:
        made, word = proxy(away.url), marker()
        assert ask(made, CHAT, word, ("authorization", "Bearer ann")) == "MISS"
        made.stop()
        away.down()
        made.start()
        assert ask(made, CHAT, word, ("authorization", "Bearer other")) == "HIT"
