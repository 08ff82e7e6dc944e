"""Embeddings, cached input by input: what is known is taken from the cache, only the rest goes upstream.

If nothing is known, the request goes upstream as it is, and its answer comes back as it is.
"""

import asyncio
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from hashlib import sha256
from time import perf_counter
from typing import Any

import orjson

from llmproxy.cache.entry import Entry
from llmproxy.cache.key import key_of
from llmproxy.cache.policy import Freshness, Verdict, freshness
from llmproxy.cache.single_flight import Flight
from llmproxy.proxy.broadcast import BroadcastBuffer
from llmproxy.proxy.fetch import Plan
from llmproxy.proxy.listen import Client, follow, wait_result
from llmproxy.proxy.request import CacheableRequest
from llmproxy.proxy.response import (
    JSON,
    Answer,
    AnswerFacts,
    Failed,
    Fetched,
    LookUp,
    Outcome,
    TryAgain,
    Whole,
    timing_header,
    type_headers,
)
from llmproxy.proxy.services import ProxyServices
from llmproxy.proxy.settle import AnswerRecorder, settle_document
from llmproxy.upstream.identity import more_precise
from llmproxy.wire.cache_headers import forward_headers
from llmproxy.wire.documents import Malformed
from llmproxy.wire.errors import ProxyError, UpstreamBroke
from llmproxy.wire.exchange import Exchange, Usage
from llmproxy.wire.formats.embeddings import BASE64, FLOAT, OtherNumbers, Part, assembled, cut, encoding_of, inputs_of
from llmproxy.wire.headers import HeaderList
from llmproxy.wire.vocabulary import CacheStatus, Reason

#: bytes from which on vectors are read and written in a thread
_ASIDE_BYTES = 128 * 1024


class Batch:
    """The inputs of one request. Each has an entry for each encoding, under the one in which its vector came."""

    def __init__(
        self, request: CacheableRequest, body: dict[str, Any], scope: str, identity: str, *, shortest: bool
    ) -> None:
        """``shortest``: the server prints float32s in their shortest form."""
        self.request = request
        self.body = body
        self.scope = scope
        self.identity = identity
        self.shortest = shortest
        self.encoding = encoding_of(body)
        self.inputs = inputs_of(body)
        self.keys = [self.key(value, self.encoding) for value in self.inputs]
        #: each different input once
        self.by_key: dict[bytes, Any] = dict(zip(self.keys, self.inputs, strict=True))

    def key(self, value: Any, encoding: str) -> bytes:
        """Of the entry of one input."""
        request = self.request
        parts = request.each + orjson.dumps([encoding, value])
        return key_of(request.endpoint.name, self.identity, self.scope, request.directives.namespace, parts)

    @property
    def all_keys(self) -> bytes:
        """The key of the only entry, else a digest of all keys."""
        return self.keys[0] if len(self.keys) == 1 else sha256(b"".join(self.keys)).digest()

    def rest(self, missing: list[bytes]) -> "Batch":
        """A request for these inputs only."""
        values = [self.by_key[key] for key in missing]
        inputs = values if isinstance(self.body["input"], list) else values[0]
        return Batch(self.request, self.body | {"input": inputs}, self.scope, self.identity, shortest=self.shortest)

    async def settle(self, recorder: AnswerRecorder, body: bytes) -> Fetched:
        """An answer as it came, with an entry for each input.

        Raises ``UpstreamBroke`` where floats were asked for and there is something else of which none can be made.
        """
        if recorder.buffer.overflowed or len(body) < _ASIDE_BYTES:
            return _settled(self, recorder, body)
        return await asyncio.to_thread(_settled, self, recorder, body)

    def under(self, identity: str, fetched: Fetched) -> Iterator[Entry]:
        """The entries of an answer, for a more precise identity of the model that made it."""
        precise = Batch(self.request, self.body, self.scope, identity, shortest=self.shortest)
        stored = {entry.key for entry in fetched.entries}
        for value, entry in zip(self.inputs, fetched.parts, strict=True):
            if entry.key in stored:
                yield replace(entry, key=precise.key(value, Part(entry.document).encoding))


@dataclass(frozen=True, slots=True)
class CachedInputs:
    """Entries by the key of the input that they answer. ``spare`` ones may answer if the upstream fails."""

    usable: dict[bytes, Entry]
    spare: dict[bytes, Entry]
    #: whether a usable one is past its lifetime
    stale: bool = False


class InputByInput:
    """The strategy for embeddings: an entry for each input, and a flight for those that have none."""

    def __init__(
        self, exchange: Exchange, request: CacheableRequest, body: dict[str, Any], services: ProxyServices
    ) -> None:
        """``exchange`` is only read."""
        # what takes names in any case is written in Go, which prints so
        shortest = services.upstreams.any_case(request.parsed.model, request.path)
        self._exchange = exchange
        self._services = services
        self._batch = Batch(request, body, exchange.caller.scope, exchange.identity, shortest=shortest)
        self._cached = CachedInputs({}, {})
        self._since = services.cache.position()
        #: whether only the inputs are asked for that are not known
        self._partial = True
        #: the inputs that the flight is for
        self._requested = self._batch
        self.key = self._batch.all_keys.hex()

    async def look_up(self) -> LookUp:
        """Entries in the encoding that was asked for, else in the other one if the same float32s can be made of them.

        After the last look nothing is awaited until the flight is joined: an answer that was stored in the meantime is
        found in memory.
        """
        batch, services, cached = self._batch, self._services, CachedInputs({}, {})
        other = FLOAT if batch.encoding == BASE64 else BASE64
        # what an answer that ended just now brings
        await services.confirmations.wait(
            [batch.key(value, each) for value in batch.by_key.values() for each in (FLOAT, BASE64)]
        )
        for encoding in (batch.encoding, other):
            keys = {batch.key(value, encoding): key for key, value in batch.by_key.items() if key not in cached.usable}
            found = await services.cache.find_many(list(keys)) if keys else {}
            if encoding == other and found:
                found = await asyncio.to_thread(_renderable, found, batch.encoding)
            cached = _judged(batch.request, cached, {keys[key]: entry for key, entry in found.items()})
        cached = CachedInputs(self._held(cached.usable), cached.spare, cached.stale)
        late = {key: entry for key in batch.by_key if key not in cached.usable and (entry := services.cache.peek(key))}
        self._cached = cached = _judged(batch.request, cached, late)
        if self._missing:
            return LookUp(None, CacheStatus.MISS, self._exchange.reason or Reason.ABSENT)
        return await self._give(cached.usable, CacheStatus.STALE if cached.stale else CacheStatus.HIT, Reason.INPUTS)

    async def again(self, verdict: Verdict) -> LookUp:
        """What came cannot be put together with what was known: all of it is asked for."""
        self._partial = False
        return LookUp(None, self._exchange.cache or CacheStatus.MISS, self._exchange.reason or Reason.ABSENT)

    def plan(self, *, shared: bool) -> Plan:
        """What a flight is to do: the inputs that are not known, or the request as it is."""
        missing, batch = self._missing, self._batch
        if self._partial and (self._cached.usable or len(missing) < len(batch.inputs)):
            batch = batch.rest(missing)
        self._requested = batch
        key = sha256(b"".join(batch.keys)).digest() if shared and batch.request.directives.single_flight else None
        return Plan(batch.request, batch.body, None, batch.scope, batch.identity, key, batch)

    def own_plan(self) -> Plan:
        raise AssertionError("vectors have one form")

    def late_entry(self) -> Entry | None:
        """None: ``look_up`` ends with it."""
        return None

    async def give(self, entry: Entry) -> LookUp:
        raise AssertionError("there is no late entry")

    async def follow(
        self,
        flight: Flight[BroadcastBuffer[Outcome]],
        client: Client,
        lead_own: Callable[[], Flight[BroadcastBuffer[Outcome]]],
    ) -> Answer | Failed | TryAgain:
        """What becomes of a flight, with what was known beside it."""
        missing = self._missing
        if self._requested is self._batch:
            answer = await follow(self._exchange, self._batch.request, flight, client, self._services.settings, None)
            if not isinstance(answer, Failed | TryAgain):
                answer.headers.append(_counts(0, len(missing)))
            return answer
        outcome = await wait_result(flight, client)
        if isinstance(outcome, Failed):
            return TryAgain() if outcome.reason is Reason.TOO_LARGE else outcome
        if len(outcome.parts) != len(missing) or not await self._same_model(outcome):
            return TryAgain()
        entries = self._held(self._cached.usable) | dict(zip(missing, outcome.parts, strict=True))
        if len(entries) != len(self._batch.by_key):
            return TryAgain()
        hits = len(self._cached.usable)
        body, usage = await self._written(entries)
        exchange = self._exchange
        headers = [*self._type_headers(body, entries), *exchange.upstream_headers]
        headers += [*forward_headers(exchange, outcome.reason), _counts(hits, len(entries) - hits)]
        headers.append(timing_header(perf_counter() - exchange.started, outcome.seconds))
        return Whole(200, headers, body, AnswerFacts(outcome.reason, usage, outcome.seconds, body))

    async def spare(self, error: ProxyError) -> LookUp | None:
        """Vectors past their lifetime in place of an error of the upstream's, if there are all of them."""
        entries = self._held(self._cached.spare | self._cached.usable)
        if error.http_status < 500 or not all(key in entries for key in self._batch.by_key):
            return None
        return await self._give(entries, CacheStatus.STALE, Reason.UPSTREAM_DOWN)

    @property
    def _missing(self) -> list[bytes]:
        return [key for key in self._batch.by_key if key not in self._cached.usable]

    def _held(self, entries: Mapping[bytes, Entry]) -> dict[bytes, Entry]:
        """Those that no flush has taken since they were found: something was waited for."""
        cache = self._services.cache
        return {key: entry for key, entry in entries.items() if cache.still_holds(entry, self._since)}

    async def _same_model(self, fetched: Fetched) -> bool:
        """Whether the model that has just answered is the one whose vectors are known: no answer mixes those of two."""
        request, services = self._batch.request, self._services
        if not await services.confirmations.wait([part.key for part in fetched.parts]):
            return False
        now = services.upstreams.identity(request.parsed.model, request.path)
        return now is not None and (now == self._batch.identity or more_precise(now, self._batch.identity))

    async def _give(self, entries: Mapping[bytes, Entry], cache: CacheStatus, reason: Reason) -> LookUp:
        """The answer made of entries alone."""
        order = [entries[key] for key in self._batch.keys]
        body, usage = await self._written(entries)
        seconds = sum(entry.upstream_seconds for entry in order)
        headers = [*self._type_headers(body, entries), *_hit_headers(order, self.key, cache, reason)]
        headers.append(timing_header(perf_counter() - self._exchange.started, seconds))
        return LookUp(Whole(200, headers, body, AnswerFacts(None, usage, seconds, body)), cache, reason)

    async def _written(self, entries: Mapping[bytes, Entry]) -> tuple[bytes, Usage]:
        order = [entries[key] for key in self._batch.keys]
        if len(order) == 1:
            # it may be the other encoding's
            self.key = order[0].key.hex()
        parts = [Part(entry.document) for entry in order]
        if sum(len(part.document) for part in parts) < _ASIDE_BYTES:
            return _written(parts, self._batch)
        return await asyncio.to_thread(_written, parts, self._batch)

    def _type_headers(self, body: bytes, entries: Mapping[bytes, Entry]) -> HeaderList:
        first = entries[self._batch.keys[0]]
        return [(b"content-length", b"%d" % len(body)), *type_headers(JSON, stream=False), *first.headers]


def _judged(request: CacheableRequest, cached: CachedInputs, found: Mapping[bytes, Entry]) -> CachedInputs:
    now = time.time()
    usable, spare, stale = dict(cached.usable), dict(cached.spare), cached.stale
    for key, entry in found.items():
        verdict = freshness(entry, request.directives, now)
        if verdict in (Freshness.FRESH, Freshness.STALE):
            usable[key] = entry
            stale |= verdict is Freshness.STALE
        elif verdict is Freshness.IF_ERROR:
            spare.setdefault(key, entry)
    return CachedInputs(usable, spare, stale)


def _renderable(found: Mapping[bytes, Entry], encoding: str) -> dict[bytes, Entry]:
    """The entries of which this encoding can be made."""
    return {key: entry for key, entry in found.items() if Part(entry.document).has(encoding)}


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
    stored = tuple(entry for entry in entries if len(entry.document) <= recorder.settings.cache_entry_bytes)
    reason = Reason.STORED if stored else Reason.TOO_LARGE
    return Fetched(document, reason, usage, recorder.seconds, stored, recorder.headers, parts=entries)


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
    cached = [count for count in counts if count is not None]
    return sum(cached) if len(cached) == len(counts) else None


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


def _written(parts: list[Part], batch: Batch) -> tuple[bytes, Usage]:
    """Every part in the encoding if it can be; else each as it came, which is how the upstream gave it."""
    try:
        return assembled(parts, batch.encoding, shortest=batch.shortest)
    except OtherNumbers:
        return assembled(parts, "")


def _counts(hits: int, misses: int) -> tuple[bytes, bytes]:
    return b"x-llmproxy-inputs", b"hit=%d; miss=%d" % (hits, misses)


def _hit_headers(order: list[Entry], key: str, cache: CacheStatus, reason: Reason) -> HeaderList:
    now = time.time()
    left = int(min(entry.expires for entry in order) - now)
    status = b'llmproxy; hit; ttl=%d; key="%s"; detail=%s' % (left, key.encode(), reason.encode())
    age = max(0, int(now - min(entry.created for entry in order)))
    return [(b"x-cache", cache.upper().encode()), (b"cache-status", status), (b"age", b"%d" % age)]
