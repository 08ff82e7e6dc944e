"""Why a request was a hit or not, on every kind of database."""

import json
from collections.abc import Sequence
from dataclasses import replace
from hashlib import sha256
from typing import Any

import pytest

from llmproxy.database.engine import Database
from llmproxy.history import explain as module
from llmproxy.history.detail import newest
from llmproxy.history.explain import excused, explain, keyed, leaves, similarity, why
from llmproxy.history.record import Recorder, Redactor
from llmproxy.wire.endpoints import BY_PATH, ENDPOINTS
from llmproxy.wire.exchange import Caller, Exchange
from llmproxy.wire.vocabulary import CacheStatus, Reason
from tests.history.exchanges import fetched
from tests.history.keeping import write

Body = dict[str, Any]
ASKED: Body = {
    "model": "m",
    "messages": [{"role": "system", "content": "It is 10:31:02."}, {"role": "user", "content": "Name a colour"}],
    "temperature": 0.5,
    "user": "ann",
    "stream": True,
}


def asked(number: int, body: Body | bytes = ASKED, **changes: Any) -> Exchange:
    """A miss whose answer was kept. The key is of all that it should be of, in one way or another."""
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    made = fetched(
        request_id=f"req-{number}",
        started_at=1_700_000_000.0 + number,
        first_byte=10.25,
        finished=10.5,
        model="m",
        request_body=raw,
        namespace="",
        query=b"",
        caller=Caller(),
    )
    made = replace(made, **changes)
    fields = keyed(BY_PATH["/v1/chat/completions"], raw)
    parts = (made.namespace, made.identity, made.query, made.caller.scope, repr(sorted((fields or {}).items())))
    return made if "key" in changes else replace(made, key=sha256(repr(parts).encode()).hexdigest())


async def explained(
    database: Database, exchanges: Sequence[Exchange], recorder: Recorder | None = None
) -> dict[str, Any]:
    """The last one."""
    await write(database, exchanges, recorder)
    record = await newest(database, exchanges[-1].request_id)
    assert record is not None
    return json.loads(json.dumps(await explain(database, record)))  # type: ignore[no-any-return]  # a JSON object


def changed(**fields: Any) -> Body:
    return {**ASKED, **fields}


def messages(system: str) -> list[Body]:
    return [{"role": "system", "content": system}, *ASKED["messages"][1:]]


async def test_the_characters_that_differ_are_shown(database: Database) -> None:
    far = changed(messages=[{"role": "user", "content": "Something else altogether"}])
    told = await explained(
        database,
        [asked(1, far), asked(2), asked(3, far), asked(4, changed(messages=messages("It is 10:31:59.")))],
    )
    assert told["nearest"]["request_id"] == "req-2"
    assert told["nearest"]["similarity"] > 0.9
    assert told["compared"] == 2
    (difference,) = told["differences"]
    assert (difference["path"], difference["kind"]) == ("messages[0].content", "text")
    assert difference["note"] == "it looks like a date or a time of day"
    assert difference["spans"] == [{"at": 12, "before": "It is 10:31:", "ours": "59", "theirs": "02", "after": "."}]
    assert told["because"][-1] == "It differs from the request most like it in messages[0].content."


async def test_the_key_is_shown_with_what_is_not_part_of_it(database: Database) -> None:
    told = await explained(database, [asked(1, caller=Caller("ann", "digest-of-a-key"), namespace="n")])
    key = told["key"]
    assert (key["endpoint"], key["model"], key["identity"], key["namespace"]) == ("chat", "m", "weights", "n")
    assert len(key["scope"]) == 12
    assert key["fields"] == {
        "messages": json.dumps(ASKED["messages"], separators=(",", ":")),
        "model": '"m"',
        "temperature": "0.5",
    }
    assert set(key["excused"]) == {"user", "stream"}
    assert key["excused"]["stream"]["value"] == "true"
    assert "form of the answer" in key["excused"]["stream"]["why"]
    assert told["because"][-1].startswith("The history has no earlier request")


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({"namespace": "other"}, "namespace"),
        ({"identity": "other weights"}, "identity of the model"),
        ({"caller": Caller("bob", "bob's")}, "scope"),
        ({"query": b"api-version=2"}, "query"),
        ({"key": "ff"}, "not recorded"),
    ],
)
async def test_the_same_body_under_another_key(database: Database, changes: Body, word: str) -> None:
    told = await explained(database, [asked(1), asked(2, changed(user="bob", stream=False), **changes)])
    assert (told["differences"], told["nearest"]["same_key"]) == ([], False)
    assert word in told["because"][-1]


async def test_a_model_that_was_swapped_and_is_back(database: Database) -> None:
    told = await explained(database, [asked(1), asked(2, identity="new"), asked(3, reason=Reason.ABSENT)])
    assert told["nearest"]["same_key"]
    assert any("Since then it was flushed, evicted" in sentence for sentence in told["because"])


async def test_an_entry_that_is_gone(database: Database) -> None:
    told = await explained(database, [asked(1), asked(60)])
    assert told["because"] == [
        "Nothing was cached for this request.",
        "An answer was stored under this key by request req-1, 59 s before. "
        "Since then it was flushed, evicted for want of space, or removed past its lifetime.",
    ]


async def test_a_hit_says_who_stored_its_answer(database: Database) -> None:
    hit = asked(2, cache=CacheStatus.HIT, reason=Reason.MEMORY, stored=None)
    told = await explained(database, [asked(1), hit])
    assert told["because"] == [
        "The entry was in the memory tier.",
        "An answer was stored under this key by request req-1, 1 s before.",
    ]


async def test_an_answer_that_was_not_kept(database: Database) -> None:
    told = await explained(database, [asked(1, stored=Reason.TOO_LARGE), asked(2)])
    assert told["because"][-1].startswith(
        "The same request came before, and its answer was not kept: The answer was lar"
    )


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"reason": Reason.NO_CACHE}, "no-cache"),
        ({"reason": Reason.EXPIRED}, "past its lifetime"),
        ({"cache": CacheStatus.BYPASS, "reason": Reason.POLICY_OFF, "key": ""}, "LLMPROXY_CACHE_POLICY=off"),
        ({"cache": CacheStatus.BYPASS, "reason": Reason.PASS_THROUGH, "endpoint": "other", "key": ""}, "none of those"),
        ({"cache": CacheStatus.JOINED}, "upstream call was shared"),
        ({"cache": None, "reason": None, "stored": None, "status": 400, "key": ""}, "ended before the cache was asked"),
        ({"stored": Reason.UPSTREAM_FAILED}, "The answer was not kept: The upstream could not be reached"),
    ],
)
async def test_the_row_itself_may_say_it(database: Database, changes: Body, sentence: str) -> None:
    told = await explained(database, [asked(1, **changes)])
    assert sentence in " ".join(told["because"])


async def test_bodies_that_cannot_be_compared(database: Database) -> None:
    told = await explained(database, [asked(1), asked(2)], Recorder(None))
    assert any("LLMPROXY_HISTORY_BODIES" in sentence for sentence in told["because"])
    told = await explained(database, [asked(3), asked(4, changed(temperature=0.7))], Recorder(20))
    assert any("LLMPROXY_HISTORY_BODY_BYTES" in sentence for sentence in told["because"])


async def test_what_was_redacted_may_be_the_difference(database: Database) -> None:
    bodies = [changed(messages=messages(f"For {who}@example.com")) for who in ("ann", "bob")]
    recorder = Recorder(1000, Redactor([r"\w+@\S+"]))
    told = await explained(database, [asked(number, body) for number, body in enumerate(bodies)], recorder)
    assert "what was redacted in it" in told["because"][-1]


async def test_other_kinds_of_differences_are_shown_short(database: Database) -> None:
    first = changed(tools=[{"name": "a"}, {"name": "b"}], seed=1, options={"x": 1, "y": 2}, stop="!" * 1000)
    second = changed(tools=[{"name": "b"}, {"name": "a"}], options={"y": 2, "x": 1.0}, temperature=0.75)
    told = await explained(database, [asked(1, first), asked(2, second)])
    shown = {each["path"]: each for each in told["differences"]}
    assert {path: each["kind"] for path, each in shown.items()} == {
        "tools": "order",
        "options": "order",
        "options.x": "changed",
        "temperature": "changed",
        "seed": "removed",
        "stop": "removed",
    }
    assert shown["options.x"] == {
        "path": "options.x",
        "kind": "changed",
        "note": "the same number, written in another way",
        "ours": "1.0",
        "theirs": "1",
    }
    assert "ours" not in shown["stop"]
    assert len(shown["stop"]["theirs"]) < 300
    assert told["because"][-1].endswith(", and in 3 more.")


async def test_only_so_many_are_compared(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOST_COMPARED", 25)
    body = [changed(seed=number) for number in range(40)]
    exchanges = [asked(number, each) for number, each in enumerate(body)]
    told = await explained(database, [*exchanges, asked(50, changed(seed=99))])
    assert told["compared"] == 25
    assert told["nearest"]["request_id"] == "req-39"
    monkeypatch.setattr(module, "MOST_BYTES", 1)
    told = await explained(database, [asked(51, body[39])])
    assert told["compared"] == 20


async def test_embeddings_are_compared_input_by_input(database: Database) -> None:
    bodies = [{"model": "m", "input": ["one", "two", end], "user": "ann"} for end in ("three", "four")]
    told = await explained(
        database, [asked(number, body, endpoint="embeddings", key=str(number)) for number, body in enumerate(bodies)]
    )
    assert [each["path"] for each in told["differences"]] == ["input[2]"]
    assert set(told["key"]["excused"]) == {"user"}


async def test_one_input_is_a_list_of_one(database: Database) -> None:
    given: list[Body] = [{"model": "m", "input": each} for each in ("one", ["one", "two"], ["one"], [1, 2], [[1, 2]])]
    made = [asked(at, body, endpoint="embeddings", key=str(body["input"])) for at, body in enumerate(given)]
    for one, other in ((0, 2), (3, 4)):
        told = await explained(database, [*made[:other], replace(made[other], key=made[one].key)])
        assert (told["nearest"]["request_id"], told["differences"]) == (f"req-{one}", [])
        assert told["because"][0] == "Not every input of the request was known."


async def test_an_answer_that_was_still_on_its_way(database: Database) -> None:
    """Two that did not share a call: each was stored."""
    told = await explained(database, [asked(1, finished=20.0), asked(2)])
    assert told["because"][1].endswith("by request req-1, 1 s before. It was still on its way then.")


def test_a_stream_is_keyed_where_it_is_another_entry() -> None:
    messages, chat = BY_PATH["/v1/messages"], BY_PATH["/v1/chat/completions"]
    ollama = BY_PATH["/api/chat"]
    assert keyed(messages, b'{"model": "m"}') == {"model": "m", "stream": False}
    assert keyed(ollama, b'{"stream": null, "keep_alive": 5}') == {}
    assert keyed(chat, b'{"stream": true}') == {}
    assert keyed(chat, b'{"cut') is None


def test_every_reason_has_its_sentence() -> None:
    assert all(why(reason).endswith(".") for reason in Reason)
    assert len({why(reason) for reason in Reason}) == len(Reason)
    assert (why(""), why("a word of another version")) == ("", "")


def test_what_is_excused_is_excused_for_a_reason() -> None:
    for endpoint in ENDPOINTS:
        assert "input" not in excused(endpoint)
        assert all(excused(endpoint).values())


def test_similarity_is_the_share_of_what_is_the_same() -> None:
    one = dict(leaves({"a": "12345678", "b": [1, {}]}))
    assert one == {".a": "12345678", ".b[0]": "1", ".b[1]": "{}"}
    assert similarity(one, one) == 1.0
    assert similarity(one, {}) == 0.0
    assert similarity({".a": "abcd"}, {".a": "abxd"}) == 3 / 5
    assert similarity({}, {}) == 1.0
