"""One exchange as a row: a tuple in the order of the table's columns, ready for the driver. Pure."""

from collections.abc import Iterable, Iterator
from enum import StrEnum
from typing import Any, NamedTuple

from llmproxy.history.tables import history
from llmproxy.wire.exchange import Exchange
from llmproxy.wire.vocabulary import Phase

#: the last one is the number of bytes that both bodies take
Row = tuple[Any, ...]

#: the columns of a ``Row``; the database gives the id
COLUMNS = tuple(column.name for column in history.columns if column.name != "id")

LONGEST_TEXT = 1_000

#: what every database holds in an INTEGER
LARGEST = 2**31 - 1


class Hit(NamedTuple):
    """One of many requests that got the same answer in one piece."""

    request_id: str
    #: Unix seconds
    started_at: float
    seconds: float


class Recorder:
    """Makes rows. ``body_bytes`` is where bodies are cut; None keeps no bodies."""

    def __init__(self, body_bytes: int | None) -> None:
        self._body_bytes = body_bytes

    def row(self, exchange: Exchange) -> Row:
        seconds = 0.0 if exchange.finished is None else exchange.finished - exchange.started
        first = None if exchange.first_byte is None else exchange.first_byte - exchange.started
        when = (_text(exchange.request_id), exchange.started_at, exchange.started_at + seconds)
        return (*when, *_before_times(exchange), first, seconds, *self._after_times(exchange))

    def rows_like(self, template: Exchange, hits: Iterable[Hit]) -> Iterator[Row]:
        """The rows of requests that had the answer of ``template``; made one by one, as they are taken."""
        before, after = _before_times(template), self._after_times(template)
        for request_id, started_at, seconds in hits:
            when = (_text(request_id), started_at, started_at + seconds)
            yield (*when, *before, seconds, seconds, *after)

    def _after_times(self, exchange: Exchange) -> Row:
        request_body, response_body = self._body(exchange.request_body), self._body(exchange.response_body)
        return (
            exchange.upstream_seconds,
            _text(exchange.error),
            request_body,
            response_body,
            len(request_body or b"") + len(response_body or b""),
        )

    def _body(self, body: bytes) -> bytes | None:
        if not body or self._body_bytes is None:
            return None
        return body if len(body) <= self._body_bytes else body[: self._body_bytes]


def _before_times(exchange: Exchange) -> Row:
    return (
        _text(exchange.user),
        _text(exchange.session),
        _text(exchange.caller.name),
        exchange.endpoint,
        _text(exchange.method),
        _text(exchange.path),
        _text(exchange.model),
        _text(exchange.upstream),
        exchange.status,
        _word(exchange.cache),
        _word(exchange.reason),
        _word(exchange.stored),
        exchange.key,
        exchange.stream,
        _count(exchange.usage.prompt_tokens),
        _count(exchange.usage.completion_tokens),
        exchange.phases.get(Phase.LIMIT),
    )


def _text(text: str) -> str:
    """What every database takes as text: no lone surrogates, no NUL (PostgreSQL), and not too long."""
    if text.isprintable() and len(text) <= LONGEST_TEXT:
        return text
    return text[:LONGEST_TEXT].encode("utf-8", "replace").decode().replace("\0", "")


def _word(word: StrEnum | None) -> str:
    return "" if word is None else word.value


def _count(tokens: int | None) -> int | None:
    """An upstream may claim any number; one that does not fit must not cost the row."""
    return None if tokens is None else max(0, min(tokens, LARGEST))
