"""Embeddings, cached input by input: what is known is taken from the cache, only the rest goes upstream.

Where nothing is known, the request goes upstream as it is, and its answer comes back as it is.
"""

import asyncio
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from hashlib import sha256
from time import perf_counter
from typing import Any

import orjson

from llmproxy.cache.entry import Entry, Position
from llmproxy.cache.key import key_of
from llmproxy.cache.policy import Freshness, Verdict, freshness
from llmproxy.cache.single_flight import Flight, Subscription
from llmproxy.proxy.broadcast import BroadcastBuffer
from llmproxy.proxy.fetch import WHOLE_BYTES, Plan, run_fetch
from llmproxy.proxy.listen import Client, follow, wait_result
from llmproxy.proxy.request import CacheableRequest
from llmproxy.proxy.response import (
    JSON,
    Answer,
    Failed,
    Fetched,
    OtherForm,
    Outcome,
    Whole,
    timing_header,
    type_headers,
)
from llmproxy.proxy.services import ProxyServices
from llmproxy.proxy.settle import AnswerRecorder, settle_document
from llmproxy.upstream.identity import more_precise
from llmproxy.wire.cache_headers import forward_headers
from llmproxy.wire.documents import Malformed
from llmproxy.wire.errors import OnlyIfCached, ProxyError, UpstreamBroke
from llmproxy.wire.exchange import Exchange, Usage
from llmproxy.wire.formats.embeddings import BASE64, FLOAT, OtherNumbers, Part, assembled, cut, encoding_of, inputs_of
from llmproxy.wire.vocabulary import CacheStatus, Phase, Reason

#: bytes from which on vectors are read and written in a thread
_ASIDE_BYTES = 128 * 1024


class Batch:
    """The inputs of one request. Each has an entry for each encoding, under the one in which its vector came."""

    def __init__(self, request: CacheableRequest, body: dict[str, Any], scope: str, *, shortest: bool) -> None:
        """``shortest``: the server prints float32s in their shortest form."""
        self.request = request
        self.body = body
        self.scope = scope
        self.shortest = shortest
        self.encoding = encoding_of(body)
        self.inputs = inputs_of(body)
        self.keys = [self.key(value, self.encoding) for value in self.inputs]
        #: each different input once
        self.wanted: dict[bytes, Any] = dict(zip(self.keys, self.inputs, strict=True))

    def key(self, value: Any, encoding: str) -> bytes:
        """Of the entry of one input."""
        request = self.request
        parts = request.each + orjson.dumps([encoding, value])
        return key_of(request.endpoint.name, request.identity, self.scope, request.directives.namespace, parts)

    @property
    def all_keys(self) -> bytes:
        """The key of the only entry, else a digest of all keys."""
        return self.keys[0] if len(self.keys) == 1 else sha256(b"".join(self.keys)).digest()

    def rest(self, missing: list[bytes]) -> "Batch":
        """A request for these inputs only."""
        values = [self.wanted[key] for key in missing]
        inputs = values if isinstance(self.body["input"], list) else values[0]
        return Batch(self.request, self.body | {"input": inputs}, self.scope, shortest=self.shortest)

    async def settle(self, recorder: AnswerRecorder, body: bytes) -> Fetched:
        """An answer as it came, with an entry for each input.

        Raises ``UpstreamBroke`` where floats were asked for and there is something else of which none can be made.
        """
        if recorder.buffer.overflowed or len(body) < _ASIDE_BYTES:
            return _settled(self, recorder, body)
        return await asyncio.to_thread(_settled, self, recorder, body)

    def under(self, identity: str, fetched: Fetched) -> Iterator[Entry]:
        """The entries of an answer, for a more precise identity of the model that made it."""
        precise = Batch(replace(self.request, identity=identity), self.body, self.scope, shortest=self.shortest)
        kept = {entry.key for entry in fetched.entries}
        for value, entry in zip(self.inputs, fetched.parts, strict=True):
            if entry.key in kept:
                yield replace(entry, key=precise.key(value, Part(entry.document).encoding))


@dataclass(frozen=True, slots=True)
class _Known:
    """Entries by the key of the input that they answer. ``spare`` ones may answer if the upstream fails."""

    usable: dict[bytes, Entry]
    spare: dict[bytes, Entry]
    #: whether a usable one is past its lifetime
    stale: bool = False


async def embed(
    exchange: Exchange,
    request: CacheableRequest,
    body: dict[str, Any],
    verdict: Verdict,
    services: ProxyServices,
    client: Client,
) -> Answer:
    """Raises ``ProxyError``, ``ClientLeft``."""
    exchange.cache, exchange.reason = CacheStatus.MISS, verdict.reason or Reason.ABSENT
    # what takes names in any case is written in Go, which prints so
    shortest = services.upstreams.any_case(request.parsed.model, request.path)
    batch = Batch(request, body, exchange.caller.scope, shortest=shortest)
    exchange.key = batch.all_keys.hex()
    exchange.mark(Phase.KEY)
    known, since = _Known({}, {}), services.cache.position()
    if verdict.look_up:
        known = await _look_up(batch, since, services)
        exchange.mark(Phase.LOOK_UP)
    missing = [key for key in batch.wanted if key not in known.usable]
    if not missing:
        exchange.cache, exchange.reason = CacheStatus.STALE if known.stale else CacheStatus.HIT, Reason.INPUTS
        return await _assembled(exchange, batch, known.usable)
    if request.directives.only_if_cached:
        exchange.stored = Reason.ONLY_IF_CACHED
        raise OnlyIfCached("Not every input is stored, and the request forbids to ask the upstream.")
    try:
        return await _fetched(exchange, batch, known.usable, since, missing, verdict, services, client)
    except ProxyError as error:
        spare = _held(known.spare | known.usable, since, services)
        if error.http_status < 500 or not all(key in spare for key in batch.wanted):
            raise
        exchange.cache, exchange.reason = CacheStatus.STALE, Reason.UPSTREAM_DOWN
        return await _assembled(exchange, batch, spare)


async def _look_up(batch: Batch, since: Position, services: ProxyServices) -> _Known:
    """Entries in the encoding that was asked for, else in the other one where the same float32s can be made of them.

    After the last look nothing is awaited until the flight is joined: an answer that was stored in the meantime is
    found in memory.
    """
    known = _Known({}, {})
    other = FLOAT if batch.encoding == BASE64 else BASE64
    # what an answer that ended just now brings
    await services.confirmations.wait(
        [batch.key(value, each) for value in batch.wanted.values() for each in (FLOAT, BASE64)]
    )
    for encoding in (batch.encoding, other):
        keys = {batch.key(value, encoding): key for key, value in batch.wanted.items() if key not in known.usable}
        found = await services.cache.find_many(list(keys)) if keys else {}
        if encoding == other and found:
            found = await asyncio.to_thread(_renderable, found, batch.encoding)
        known = _judged(batch.request, known, {keys[key]: entry for key, entry in found.items()})
    known = _Known(_held(known.usable, since, services), known.spare, known.stale)
    late = {key: entry for key in batch.wanted if key not in known.usable and (entry := services.cache.peek(key))}
    return _judged(batch.request, known, late)


def _judged(request: CacheableRequest, known: _Known, found: Mapping[bytes, Entry]) -> _Known:
    now = time.time()
    usable, spare, stale = dict(known.usable), dict(known.spare), known.stale
    for key, entry in found.items():
        verdict = freshness(entry, request.directives, now)
        if verdict in (Freshness.FRESH, Freshness.STALE):
            usable[key] = entry
            stale |= verdict is Freshness.STALE
        elif verdict is Freshness.IF_ERROR:
            spare.setdefault(key, entry)
    return _Known(usable, spare, stale)


def _held(entries: Mapping[bytes, Entry], since: Position, services: ProxyServices) -> dict[bytes, Entry]:
    """Those that no flush has taken since they were found: something was waited for."""
    return {key: entry for key, entry in entries.items() if services.cache.still_holds(entry, since)}


def _renderable(found: Mapping[bytes, Entry], encoding: str) -> dict[bytes, Entry]:
    """The entries of which this encoding can be made."""
    return {key: entry for key, entry in found.items() if Part(entry.document).has(encoding)}


async def _fetched(
    exchange: Exchange,
    batch: Batch,
    known: dict[bytes, Entry],
    since: Position,
    missing: list[bytes],
    verdict: Verdict,
    services: ProxyServices,
    client: Client,
) -> Answer:
    if known or len(missing) < len(batch.inputs):
        rest = batch.rest(missing)
        outcome = await _fetched_result(exchange, rest, verdict, services, client)
        if (
            isinstance(outcome, Fetched)
            and len(outcome.parts) == len(missing)
            and await _same_model(batch, outcome, services)
        ):
            fetched = _held(known, since, services) | dict(zip(missing, outcome.parts, strict=True))
            if len(fetched) == len(batch.wanted):
                exchange.stored, exchange.upstream_seconds = outcome.reason, outcome.seconds
                return await _assembled(exchange, batch, fetched, hits=len(known))
        if isinstance(outcome, Failed) and outcome.reason is not Reason.TOO_LARGE:
            exchange.stored = outcome.reason
            raise outcome.error
        # what came cannot be put together with what was known: ask for all of it
    subscription = _join(exchange, batch, verdict, services)
    exchange.mark(Phase.JOIN)
    answer = await follow(exchange, batch.request, subscription.flight, client, services.settings, None)
    if isinstance(answer, Failed) and not subscription.led and answer.leaders_own:
        answer = await follow(
            exchange, batch.request, _launch(exchange, batch, None, services), client, services.settings, None
        )
    if isinstance(answer, Failed):
        exchange.stored = answer.reason
        raise answer.error
    # OtherForm is for those who could ask for a form of their own
    assert not isinstance(answer, OtherForm)
    answer.headers.append(_counts(0, len(missing)))
    return answer


async def _same_model(batch: Batch, fetched: Fetched, services: ProxyServices) -> bool:
    """Whether the model that has just answered is the one whose vectors are known: no answer mixes those of two."""
    request = batch.request
    if not await services.confirmations.wait([part.key for part in fetched.parts]):
        return False
    now = services.upstreams.identity(request.parsed.model, request.path)
    return now is not None and (now == request.identity or more_precise(now, request.identity))


async def _fetched_result(
    exchange: Exchange, batch: Batch, verdict: Verdict, services: ProxyServices, client: Client
) -> Outcome:
    """The end of a call, for one who needs the whole of it."""
    subscription = _join(exchange, batch, verdict, services)
    exchange.mark(Phase.JOIN)
    outcome = await wait_result(subscription.flight, client)
    if isinstance(outcome, Failed) and not subscription.led and outcome.leaders_own:
        outcome = await wait_result(_launch(exchange, batch, None, services), client)
    return outcome


def _join(
    exchange: Exchange, batch: Batch, verdict: Verdict, services: ProxyServices
) -> Subscription[BroadcastBuffer[Outcome]]:
    shared = services.settings.single_flight and batch.request.directives.single_flight
    key = sha256(b"".join(batch.keys)).digest() if shared else None
    flight = services.flights.find(key) if key is not None and verdict.look_up else None
    if flight is None or flight.work.overflowed:
        return Subscription(_launch(exchange, batch, key, services), led=True)
    flight.listen()
    exchange.cache = CacheStatus.JOINED
    return Subscription(flight, led=False)


def _launch(
    exchange: Exchange, batch: Batch, flight_key: bytes | None, services: ProxyServices
) -> Flight[BroadcastBuffer[Outcome]]:
    request = batch.request
    plan = Plan(request, batch.body, None, batch.scope, request.identity, flight_key, batch)
    buffer: BroadcastBuffer[Outcome] = BroadcastBuffer(max(WHOLE_BYTES, services.settings.cache_entry_bytes))
    return services.flights.launch(buffer, partial(run_fetch, plan, exchange=exchange, services=services), flight_key)


def _settled(batch: Batch, recorder: AnswerRecorder, body: bytes) -> Fetched:
    if recorder.buffer.overflowed:
        return settle_document(recorder, body)
    try:
        parts = cut(body, batch.inputs)
    except OtherNumbers as other:
        if other.text and batch.encoding == FLOAT:
            raise UpstreamBroke(f"The upstream's answer is malformed: {other}.") from other
        return replace(settle_document(recorder, body), reason=Reason.NOT_FLOAT32)
    except Malformed:
        fetched = settle_document(recorder, body)
        return replace(fetched, reason=Reason.MALFORMED) if fetched.reason is Reason.NO_STORE else fetched
    document, usage = _as_asked(body, parts, batch)
    entries = tuple(_entries(batch, recorder, parts))
    kept = tuple(entry for entry in entries if len(entry.document) <= recorder.settings.cache_entry_bytes)
    reason = Reason.STORED if kept else Reason.TOO_LARGE
    return Fetched(document, reason, usage, recorder.seconds, kept, recorder.headers, parts=entries)


def _as_asked(body: bytes, parts: list[Part], batch: Batch) -> tuple[bytes, Usage]:
    """The answer as it came, but for vectors in the other encoding that can be given in the one that was asked for."""
    usage = Usage(_total([part.prompt_tokens for part in parts]), None)
    if all(part.encoding == batch.encoding for part in parts):
        return body, usage
    try:
        return assembled(parts, batch.encoding, shortest=batch.shortest)
    except OtherNumbers:
        return body, usage


def _total(counts: list[int | None]) -> int | None:
    known = [count for count in counts if count is not None]
    return sum(known) if len(known) == len(counts) else None


def _entries(batch: Batch, recorder: AnswerRecorder, parts: list[Part]) -> list[Entry]:
    request, directives, now = batch.request, batch.request.directives, time.time()
    ttl = recorder.settings.ttl_seconds if directives.ttl is None else directives.ttl
    return [
        Entry(
            key=batch.key(value, part.encoding),
            operation=request.endpoint.name,
            model=request.parsed.model,
            scope=batch.scope,
            namespace=directives.namespace,
            tags=directives.tags,
            created=now,
            expires=now + ttl,
            document=part.document,
            headers=recorder.headers,
            upstream_seconds=recorder.seconds / len(parts),
            prompt_tokens=part.prompt_tokens,
        )
        for value, part in zip(batch.inputs, parts, strict=True)
    ]


async def _assembled(
    exchange: Exchange, batch: Batch, entries: Mapping[bytes, Entry], hits: int | None = None
) -> Whole:
    """The answer made of entries. ``hits`` is how many of them were known, None for all."""
    order = [entries[key] for key in batch.keys]
    parts = [Part(entry.document) for entry in order]
    if len(order) == 1:
        # it may be the other encoding's
        exchange.key = order[0].key.hex()
    if sum(len(part.document) for part in parts) < _ASIDE_BYTES:
        body, usage = _written(parts, batch)
    else:
        body, usage = await asyncio.to_thread(_written, parts, batch)
    exchange.usage, exchange.response_body = usage, body
    headers = [(b"content-length", b"%d" % len(body)), *type_headers(JSON, stream=False), *order[0].headers]
    if hits is None:
        exchange.upstream_seconds = sum(entry.upstream_seconds for entry in order)
        headers += _hit_headers(exchange, order)
    else:
        headers += exchange.upstream_headers
        headers += [*forward_headers(exchange, exchange.stored), _counts(hits, len(entries) - hits)]
    headers.append(timing_header(perf_counter() - exchange.started, exchange.upstream_seconds))
    return Whole(200, headers, body)


def _written(parts: list[Part], batch: Batch) -> tuple[bytes, Usage]:
    """Every part in the encoding if it can be; else each as it came, which is how the upstream gave it."""
    try:
        return assembled(parts, batch.encoding, shortest=batch.shortest)
    except OtherNumbers:
        return assembled(parts, "")


def _counts(hits: int, misses: int) -> tuple[bytes, bytes]:
    return b"x-llmproxy-inputs", b"hit=%d; miss=%d" % (hits, misses)


def _hit_headers(exchange: Exchange, order: list[Entry]) -> list[tuple[bytes, bytes]]:
    now = time.time()
    cache, reason = exchange.cache or CacheStatus.HIT, exchange.reason or Reason.INPUTS
    left = int(min(entry.expires for entry in order) - now)
    status = b'llmproxy; hit; ttl=%d; key="%s"; detail=%s' % (left, exchange.key.encode(), reason.encode())
    age = max(0, int(now - min(entry.created for entry in order)))
    return [(b"x-cache", cache.upper().encode()), (b"cache-status", status), (b"age", b"%d" % age)]
