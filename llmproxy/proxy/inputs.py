"""Embeddings, cached input by input: what is known is taken from the cache, only the rest goes upstream."""

import base64
import struct
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from hashlib import sha256
from time import perf_counter
from typing import Any

import orjson

from llmproxy.cache.entry import Entry
from llmproxy.cache.flight import Flight
from llmproxy.cache.key import key_of
from llmproxy.cache.policy import Freshness, Verdict, freshness
from llmproxy.capture.tee import Capture
from llmproxy.config.settings import Settings
from llmproxy.proxy.answer import Failed, Landed, Outcome, Whole
from llmproxy.proxy.asked import Asked
from llmproxy.proxy.fetch import WHOLE_BYTES, Plan, fly
from llmproxy.proxy.follow import landing
from llmproxy.proxy.headers import JSON, timing_header, type_headers
from llmproxy.proxy.listener import Listener
from llmproxy.proxy.rooms import Rooms
from llmproxy.wire.cache_status import forward_headers
from llmproxy.wire.dialect import Malformed
from llmproxy.wire.errors import BadRequest, OnlyIfCached, ProxyError
from llmproxy.wire.exchange import Exchange, Usage
from llmproxy.wire.vocabulary import CacheStatus, Phase, Reason


def inputs_of(body: dict[str, Any]) -> list[Any]:
    """The separate inputs of an embeddings body: one string, one list of token numbers, or a list of either."""
    value = body.get("input")
    if isinstance(value, list):
        return [value] if value and isinstance(value[0], int) else value
    return [] if value is None else [value]


async def embed(
    exchange: Exchange, asked: Asked, body: dict[str, Any], verdict: Verdict, rooms: Rooms, listener: Listener
) -> Whole:
    """Raises ``ProxyError``, ``ClientLeft``."""
    encoding = body.get("encoding_format") or "float"
    if encoding not in ("float", "base64"):
        raise BadRequest("'encoding_format' must be 'float' or 'base64'.", param="encoding_format")
    exchange.cache, exchange.reason = CacheStatus.MISS, verdict.reason or Reason.ABSENT
    wanted = _keyed(exchange, asked, inputs_of(body))
    exchange.mark(Phase.KEY)
    known, spare = await _known(asked, list(wanted), rooms) if verdict.look_up else ({}, {})
    exchange.mark(Phase.LOOK_UP)
    missing = {key: value for key, value in wanted.items() if key not in known}
    if missing:
        if asked.wishes.only_if_cached:
            exchange.stored = Reason.ONLY_IF_CACHED
            raise OnlyIfCached("Not every input is stored, and the request forbids to ask the upstream.")
        try:
            fetched = await _fetched(exchange, asked, body, missing, verdict, rooms, listener)
        except ProxyError as error:
            if error.http_status < 500 or not missing.keys() <= spare.keys():
                raise
            exchange.cache, exchange.reason = CacheStatus.STALE, Reason.UPSTREAM_DOWN
            known |= {key: spare[key] for key in missing}
        else:
            known |= {entry.key: entry for entry in fetched.entries}
    else:
        exchange.cache, exchange.reason = CacheStatus.HIT, Reason.INPUTS
    order = [known[key] for key in _keys(exchange, asked, inputs_of(body))]
    return _rendered(exchange, order, encoding, hits=len(wanted) - len(missing))


def _keys(exchange: Exchange, asked: Asked, inputs: Sequence[Any]) -> list[bytes]:
    scope, namespace = exchange.caller.scope, asked.wishes.namespace
    return [
        key_of(asked.endpoint.name, asked.identity, scope, namespace, asked.digest + orjson.dumps(value))
        for value in inputs
    ]


def _keyed(exchange: Exchange, asked: Asked, inputs: Sequence[Any]) -> dict[bytes, Any]:
    """Each different input once, by its key, in the order of the request."""
    keys = _keys(exchange, asked, inputs)
    exchange.key = keys[0].hex() if len(keys) == 1 else sha256(b"".join(keys)).hexdigest()
    return dict(zip(keys, inputs, strict=True))


async def _known(asked: Asked, keys: list[bytes], rooms: Rooms) -> tuple[dict[bytes, Entry], dict[bytes, Entry]]:
    """The entries that answer, and those that may answer if the upstream fails."""
    found, now = await rooms.cache.find_many(keys), time.time()
    judged = [(key, entry, freshness(entry, asked.wishes, now)) for key, entry in found.items()]
    usable = (Freshness.FRESH, Freshness.STALE)
    return (
        {key: entry for key, entry, verdict in judged if verdict in usable},
        {key: entry for key, entry, verdict in judged if verdict is Freshness.IF_ERROR},
    )


async def _fetched(
    exchange: Exchange,
    asked: Asked,
    body: dict[str, Any],
    missing: dict[bytes, Any],
    verdict: Verdict,
    rooms: Rooms,
    listener: Listener,
) -> Landed:
    flight_key = sha256(b"".join(missing)).digest()
    shared = rooms.settings.single_flight and asked.wishes.single_flight
    flight = rooms.flights.find(flight_key) if shared and verdict.look_up else None
    outcome: Outcome | None = None
    if flight is not None:
        flight.listen()
        exchange.cache = CacheStatus.JOINED
        exchange.mark(Phase.JOIN)
        outcome = await landing(flight, listener)
    if outcome is None or (isinstance(outcome, Failed) and outcome.leaders_own):
        flight = _launch(exchange, asked, body, missing, flight_key if shared and outcome is None else None, rooms)
        exchange.mark(Phase.JOIN)
        outcome = await landing(flight, listener)
    if isinstance(outcome, Failed):
        exchange.stored = outcome.reason
        raise outcome.error
    exchange.stored, exchange.upstream_seconds = outcome.reason, outcome.seconds
    return outcome


def _launch(
    exchange: Exchange,
    asked: Asked,
    body: dict[str, Any],
    missing: dict[bytes, Any],
    flight_key: bytes | None,
    rooms: Rooms,
) -> Flight[Capture[Outcome]]:
    rest = list(missing.values())
    sent = body | {"input": rest if isinstance(body["input"], list) else rest[0], "encoding_format": "float"}
    split = partial(_split, asked, missing, exchange.caller.scope, rooms.settings)
    plan = Plan(asked, sent, None, exchange.caller.scope, asked.identity, flight_key, split)
    capture: Capture[Outcome] = Capture(max(WHOLE_BYTES, rooms.settings.cache_entry_bytes))
    return rooms.flights.launch(capture, partial(fly, plan, exchange=exchange, rooms=rooms), flight_key)


@dataclass(frozen=True, slots=True)
class _Vector:
    """One embedding: little-endian float32s in base64, as OpenAI sends them."""

    base64: str

    @classmethod
    def of(cls, value: Any) -> "_Vector":
        if isinstance(value, str):
            return cls(value)
        if not isinstance(value, list) or not value:
            raise Malformed("an embedding is neither a list of numbers nor base64")
        try:
            return cls(base64.b64encode(struct.pack(f"<{len(value)}f", *value)).decode())
        except (struct.error, OverflowError) as error:
            raise Malformed("an embedding holds what is not a number") from error

    def floats(self) -> list[float]:
        raw = base64.b64decode(self.base64)
        return list(struct.unpack(f"<{len(raw) // 4}f", raw))


def _split(asked: Asked, missing: dict[bytes, Any], scope: str, settings: Settings, landed: Landed) -> list[Entry]:
    """One entry for each input of a fetched answer. Raises ``Malformed`` if it does not fit the request."""
    document = orjson.loads(landed.document)
    data = document.get("data")
    if not isinstance(data, list) or sorted(item.get("index", at) for at, item in enumerate(data)) != list(
        range(len(missing))
    ):
        raise Malformed(f"{len(missing)} embeddings were asked for, other ones came")
    vectors = {item.get("index", at): _Vector.of(item.get("embedding")) for at, item in enumerate(data)}
    tokens = shares(landed.usage.prompt_tokens, list(missing.values()))
    now, wishes = time.time(), asked.wishes
    return [
        Entry(
            key=key,
            operation=asked.endpoint.name,
            model=asked.draft.model,
            scope=scope,
            namespace=wishes.namespace,
            tags=wishes.tags,
            created=now,
            expires=now + (settings.ttl_seconds if wishes.ttl is None else wishes.ttl),
            document=orjson.dumps({"model": document.get("model"), "embedding": vectors[at].base64}),
            headers=landed.headers,
            upstream_seconds=landed.seconds / len(missing),
            prompt_tokens=tokens[at],
        )
        for at, key in enumerate(missing)
    ]


def shares(total: int | None, inputs: Sequence[Any]) -> list[int | None]:
    """The tokens of each input. Upstreams tell only the sum, so it is shared out by length, such that the sum stays.

    A list of token numbers counts itself.
    """
    if total is None:
        return [None] * len(inputs)
    weights = [len(value) if isinstance(value, list) else max(1, len(str(value))) for value in inputs]
    whole, given, result = sum(weights), 0, []
    reach = 0
    for weight in weights:
        reach += weight
        share = total * reach // whole - given
        given += share
        result.append(share)
    return list(result)


def _rendered(exchange: Exchange, order: list[Entry], encoding: str, hits: int) -> Whole:
    documents = [orjson.loads(entry.document) for entry in order]
    tokens = sum(entry.prompt_tokens or 0 for entry in order)
    data = []
    for index, document in enumerate(documents):
        vector = _Vector(document["embedding"])
        value = vector.base64 if encoding == "base64" else vector.floats()
        data.append({"object": "embedding", "index": index, "embedding": value})
    body = orjson.dumps(
        {
            "object": "list",
            "data": data,
            "model": documents[0]["model"] or exchange.model,
            "usage": {"prompt_tokens": tokens, "total_tokens": tokens},
        }
    )
    exchange.usage, exchange.response_body = Usage(tokens, None), body
    headers = [(b"content-length", b"%d" % len(body)), *type_headers(JSON, stream=False), *order[0].headers]
    if exchange.cache in (CacheStatus.HIT, CacheStatus.STALE):
        exchange.upstream_seconds = sum(entry.upstream_seconds for entry in order)
        age = max(0, int(time.time() - min(entry.created for entry in order)))
        left = int(min(entry.expires for entry in order) - time.time())
        key = exchange.key.encode()
        headers += [
            (b"x-cache", exchange.cache.upper().encode()),
            (
                b"cache-status",
                b'llmproxy; hit; ttl=%d; key="%s"; detail=%s'
                % (left, key, (exchange.reason or Reason.INPUTS).encode()),
            ),
            (b"age", b"%d" % age),
        ]
    else:
        headers += forward_headers(exchange, exchange.stored)
        headers.append((b"x-llmproxy-inputs", b"hit=%d; miss=%d" % (hits, len({entry.key for entry in order}) - hits)))
    headers.append(timing_header(perf_counter() - exchange.started, exchange.upstream_seconds))
    return Whole(200, headers, body)
