"""The order of the phases, request by request; and the same words in the documentation."""

import ast
import io
import re
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from time import perf_counter
from typing import Any

import orjson
import pytest

from llmproxy.app.deadline import Deadline
from llmproxy.app.lifespan import open_services
from llmproxy.app.state import AppState
from llmproxy.cache.tier import Selector, Tier
from llmproxy.cache.tiers import TIERS, TierContext, TierKind
from llmproxy.config.settings import Settings
from llmproxy.observe.access_log import AccessLog, JsonFormatter
from llmproxy.observe.logs import AsyncLogWriter
from llmproxy.proxy import pipeline
from llmproxy.proxy.pipeline import handle
from llmproxy.proxy.request import CacheableRequest
from llmproxy.proxy.response import Answer, Live, Whole
from llmproxy.upstream.headers import Peer
from llmproxy.wire.cache_headers import PLAIN, Directives
from llmproxy.wire.endpoints import BY_PATH
from llmproxy.wire.errors import OnlyIfCached
from llmproxy.wire.exchange import Exchange
from llmproxy.wire.vocabulary import CacheStatus, Phase, Reason
from tests.cache.shared import SharedTier
from tests.scripted import marker
from tests.scripted_upstream import ScriptedUpstream

FETCHED = ["pick", "send", "tee", "settle", "store"]


class Patient:
    """A listener without a socket: it never leaves."""

    disconnected = False

    def watch(self, wake: Callable[[], None]) -> None:
        pass


@pytest.fixture
async def state(upstream: ScriptedUpstream, tmp_path: Path) -> AsyncIterator[AppState]:
    settings = Settings(upstream=(upstream.url,), database_path=tmp_path / "llmproxy.db")
    log = AccessLog(JsonFormatter(), AsyncLogWriter(io.StringIO(), lost=JsonFormatter().lost).write)
    async with open_services(settings, log, Deadline(settings.shutdown_seconds)) as state:
        yield state


async def ask(
    state: AppState, body: dict[str, Any], directives: Directives = PLAIN, path: str = "/v1/chat/completions"
) -> tuple[Exchange, Answer]:
    endpoint, raw = BY_PATH[path], orjson.dumps(body)
    parsed = await state.services.memo.parsed(endpoint, raw)
    request = CacheableRequest(endpoint, parsed, directives, raw, path.encode(), [], Peer("127.0.0.1"))
    exchange = Exchange("id", "POST", path, perf_counter(), time.time())
    try:
        return exchange, await handle(exchange, request, state.services, Patient())
    except OnlyIfCached as error:
        return exchange, Whole(error.http_status, [], error.body())


def chat(prompt: str, **more: Any) -> dict[str, Any]:
    return {"model": "scripted", "messages": [{"role": "user", "content": prompt}], **more}


def trail(exchange: Exchange) -> list[str]:
    return [phase.value for phase in exchange.phases]


async def test_a_miss_then_a_hit(state: AppState) -> None:
    body = chat(marker())
    miss, answer = await ask(state, body)
    assert trail(miss) == ["admit", "key", "look up", "join", *FETCHED]
    assert (miss.cache, miss.reason, miss.stored) == (CacheStatus.MISS, Reason.ABSENT, Reason.STORED)
    hit, again = await ask(state, body)
    assert trail(hit) == ["admit", "key", "look up"]
    assert (hit.cache, hit.reason, hit.key) == (CacheStatus.HIT, Reason.MEMORY, miss.key)
    assert isinstance(answer, Whole)
    assert isinstance(again, Whole)
    assert answer.body == again.body


async def test_a_request_that_must_not_be_kept_has_no_key(state: AppState) -> None:
    body = chat(marker())
    exchange, _ = await ask(state, body, Directives(no_store=True))
    assert trail(exchange) == ["admit", "key", "join", *FETCHED]
    assert (exchange.cache, exchange.reason, exchange.key) == (CacheStatus.BYPASS, Reason.NO_STORE, "")
    after, _ = await ask(state, body)
    assert after.cache is CacheStatus.MISS


async def test_no_cache_is_not_looked_up_but_kept(state: AppState) -> None:
    body = chat(marker())
    await ask(state, body)
    exchange, fresh = await ask(state, body, Directives(no_cache=True))
    assert trail(exchange) == ["admit", "key", "join", *FETCHED]
    assert (exchange.cache, exchange.reason) == (CacheStatus.MISS, Reason.NO_CACHE)
    hit, again = await ask(state, body)
    assert hit.cache is CacheStatus.HIT
    assert isinstance(fresh, Whole)
    assert isinstance(again, Whole)
    assert again.body == fresh.body, "what came last is what is kept"


async def test_only_if_cached_ends_after_the_look_up(state: AppState) -> None:
    exchange, answer = await ask(state, chat(marker()), Directives(only_if_cached=True))
    assert trail(exchange) == ["admit", "key", "look up"]
    assert isinstance(answer, Whole)
    assert answer.status == 504
    assert (exchange.cache, exchange.failed) == (CacheStatus.ONLY_IF_CACHED, False)


async def test_a_follower_does_nothing_but_follow(state: AppState) -> None:
    body = chat(marker(), stream=True)
    leader, first = await ask(state, body)
    follower, second = await ask(state, body)
    assert isinstance(first, Live)
    if follower.cache is CacheStatus.JOINED:
        assert trail(follower) == ["admit", "key", "look up", "join"]
        assert isinstance(second, Live)
        second.flight.leave()
    first.flight.leave()
    assert leader.cache is CacheStatus.MISS


async def test_embeddings_are_looked_up_input_by_input(state: AppState) -> None:
    one, other = marker(), marker()
    path = "/v1/embeddings"
    await ask(state, {"model": "scripted", "input": [one]}, path=path)
    mixed, _ = await ask(state, {"model": "scripted", "input": [one, other]}, path=path)
    assert trail(mixed) == ["admit", "key", "look up", "join", *FETCHED]
    known, _ = await ask(state, {"model": "scripted", "input": [other, one, other]}, path=path)
    assert trail(known) == ["admit", "key", "look up"]
    assert (known.cache, known.reason) == (CacheStatus.HIT, Reason.INPUTS)


def test_the_documentation_has_the_phases_in_their_order() -> None:
    page = (Path(__file__).parents[2] / "docs" / "life.md").read_text()
    phases = [phase.value for phase in Phase]
    assert re.findall(r"^## ([a-z ]+)$", page, re.MULTILINE) == phases
    assert " -> ".join(phases) in page


def test_the_pipeline_marks_the_phases_in_their_order() -> None:
    """Each function that marks phases does so in the order of the documentation, and together they mark all of them."""
    order, marked = list(Phase), set()
    for function in ast.parse(Path(pipeline.__file__).read_text()).body:
        mentions = [
            (node.lineno, Phase[node.attr])
            for node in ast.walk(function)
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "Phase"
        ]
        phases = [phase for _, phase in sorted(mentions)]
        assert phases == sorted(phases, key=order.index), ast.unparse(function)
        marked |= set(phases)
    assert [phase for phase in order if phase in marked] == order[order.index(Phase.READ) : order.index(Phase.RECORD)]


async def test_a_shared_answer_repeats_each_callers_own_labels(state: AppState) -> None:
    request = {"model": "scripted", "input": marker()}
    path = "/v1/responses"
    _, first = await ask(state, {**request, "metadata": {"who": "annabel"}, "user": "annabel"}, path=path)
    for stream in (False, True):
        hit, second = await ask(state, {**request, "metadata": {"who": "bob"}, "stream": stream}, path=path)
        assert hit.cache is CacheStatus.HIT
        assert isinstance(second, Whole)
        assert b"annabel" not in second.body
    assert isinstance(first, Whole)
    assert b"annabel" in first.body
    again, same = await ask(state, {**request, "metadata": {"who": "annabel"}, "user": "annabel"}, path=path)
    assert again.cache is CacheStatus.HIT
    assert isinstance(same, Whole)
    assert same.body == first.body


@pytest.mark.parametrize(
    "document",
    [
        b'{"choices":[{"index":0,"message":null,"finish_reason":"stop"}]}',
        b'{"choices":null}',
        b'{"choices":[{"index":"a"}]}',
        b'{"error":{"message":"no"},"deep":%b}' % (b"[" * 1000 + b"]" * 1000),
        b"[1]",
        b"no JSON",
        b"",
    ],
)
async def test_what_was_stored_and_cannot_be_given_is_a_miss(state: AppState, document: bytes) -> None:
    """As an earlier version may have stored it, or a later one."""
    body = chat(marker())
    first, _ = await ask(state, body)
    key = bytes.fromhex(first.key)
    entry = state.services.cache.peek(key)
    assert entry is not None
    state.services.cache.tiers[0].keep(replace(entry, document=document))
    again, answer = await ask(state, body | {"stream": True})
    assert (again.cache, again.stored) == (CacheStatus.MISS, None if isinstance(answer, Live) else Reason.STORED)
    assert document == b"" or again.response_body != document
    if isinstance(answer, Live):
        answer.flight.leave()


async def test_a_tier_needs_a_row_in_the_table_and_nothing_else(
    upstream: ScriptedUpstream, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not a reason of its own either: that is the same for all tiers that have none."""

    @asynccontextmanager
    async def opened(context: TierContext) -> AsyncIterator[Tier]:
        yield SharedTier()

    monkeypatch.delitem(TIERS, "memory")
    monkeypatch.setitem(TIERS, "shared", TierKind(lambda settings: 10**6, opened))
    settings = Settings(upstream=(upstream.url,), database_path=tmp_path / "llmproxy.db", cache_disk_bytes=0)
    log = AccessLog(JsonFormatter(), AsyncLogWriter(io.StringIO(), lost=JsonFormatter().lost).write)
    body = chat(marker())
    async with open_services(settings, log, Deadline(settings.shutdown_seconds)) as state:
        miss, _ = await ask(state, body)
        hit, answer = await ask(state, body)
        page = (await state.metrics.exposition()).decode()
        assert (await state.services.cache.flush(Selector(all=True))).entries == 1
        gone, _ = await ask(state, body)
    assert isinstance(answer, Whole)
    assert b"detail=tier" in dict(answer.headers)[b"cache-status"]
    assert [(each.cache, each.reason) for each in (miss, hit, gone)] == [
        (CacheStatus.MISS, Reason.ABSENT),
        (CacheStatus.HIT, Reason.TIER),
        (CacheStatus.MISS, Reason.ABSENT),
    ]
    assert 'llmproxy_cache_entries{tier="shared"} 1.0' in page
