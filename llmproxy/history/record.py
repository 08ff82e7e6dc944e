"""One exchange as a row, without what must not be kept: a tuple in the order of the table's columns. Pure."""

import re
from collections.abc import Iterable, Iterator, Sequence
from enum import StrEnum
from hashlib import sha256
from typing import Any

import orjson

from llmproxy.history.tables import history
from llmproxy.wire.exchange import Exchange, RepeatHit
from llmproxy.wire.vocabulary import Phase

#: what stands in the place of what was removed
REDACTED = "[redacted]"

#: characters of data that are searched at once: patterns may cost the square of it
_PIECE = 1_000
#: so far a match may reach into the next piece and still be noticed there
_OVERLAP = 200

# without a space in between: no text, or one in a script without spaces, and what patterns for texts are slow on
_DATA = re.compile(rf"(?<!\S)\S{{{_PIECE},}}")
_BOM = b"\xef\xbb\xbf"
# strings and numbers of a JSON document; the last string may have been cut
_TOKEN = re.compile(rb'"(?:[^"\\]|\\.)*(?:"|\\?\Z)|-?[0-9][0-9.eE+-]*', re.S)


class Redactor:
    """Applies patterns to texts inside bodies. Everything else of a body stays as it is, byte for byte."""

    def __init__(self, patterns: Sequence[str]) -> None:
        """Raises ``re.error``."""
        self._patterns = [re.compile(pattern) for pattern in patterns]

    def __bool__(self) -> bool:
        return bool(self._patterns)

    def redacted(self, body: bytes) -> bytes:
        """The body without what the patterns match. In JSON, strings are searched with their escapes resolved."""
        if body.removeprefix(_BOM).lstrip()[:1] in (b"{", b"["):
            return _TOKEN.sub(lambda token: self._token(token[0]), body)
        return self.text(body.decode("utf-8", "surrogateescape")).encode("utf-8", "surrogateescape")

    def _token(self, token: bytes) -> bytes:
        if not token.startswith(b'"'):
            number = token.decode()
            return token if self.text(number) == number else orjson.dumps(REDACTED)
        ended = len(token) > 1 and token.endswith(b'"')
        try:
            text: str = orjson.loads(token if ended else token + b'"')
        except orjson.JSONDecodeError:
            # cut in the middle of an escape or a character, or no JSON after all
            text = token[1:].decode("utf-8", "ignore")
        found = self.text(text)
        if found == text:
            return token
        written = orjson.dumps(found)
        return written if ended else written[:-1]

    def text(self, text: str) -> str:
        """The same for a text."""
        for pattern in self._patterns:
            text = "".join(_parts(pattern, text))
        return text


def _parts(pattern: re.Pattern[str], text: str) -> Iterator[str]:
    """What is left of a text. Texts are searched as a whole, long runs of data piece by piece; a match that began in
    one goes as far as it goes."""
    at = 0
    for end in _ends(text):
        limit = min(end + _OVERLAP, len(text))
        while at < end and (found := pattern.search(text, at, limit)) is not None and found.start() < end:
            if found.end() == limit:
                found = pattern.match(text, found.start()) or found
            yield text[at : found.start()] + REDACTED
            at = found.end()
            if found.start() == at:
                yield text[at : at + 1]
                at += 1
        yield text[at:end]
        at = max(at, end)


def _ends(text: str) -> Iterator[int]:
    for run in _DATA.finditer(text):
        yield from range(run.start() + _PIECE, run.end(), _PIECE)
    yield len(text)


Row = tuple[Any, ...]

#: the columns of a ``Row``; the database gives the id
COLUMNS = tuple(column.name for column in history.columns if column.name != "id")
#: where in a ``Row`` the number of bytes is that both bodies take, and the error, which may repeat what was said
BODY_BYTES, _ERROR = COLUMNS.index("body_bytes"), COLUMNS.index("error")

LONGEST_TEXT = 1_000

#: what every database holds in an INTEGER
LARGEST = 2**31 - 1


#: what SDKs put into URLs, and holds no secret
_PLAIN_QUERY = re.compile(rb"(?:beta|api-version)=[A-Za-z0-9._-]{1,40}(?:&(?:beta|api-version)=[A-Za-z0-9._-]{1,40})?")

#: bytes that are kept of a longer body until it was searched: what is to be removed may lie across the cut. What is not
#: removed of the last ones is not kept in any case: half of something may be left there.
_MARGIN = 4_096


class Recorder:
    """Makes rows. ``body_bytes`` is where bodies are cut; None keeps no bodies.

    ``redactor`` has its say in ``finished``, which takes its time; the other methods are quick.
    """

    def __init__(self, body_bytes: int | None, redactor: Redactor | None = None) -> None:
        self._body_bytes = body_bytes
        self._redactor = redactor

    def row(self, exchange: Exchange) -> Row:
        seconds = 0.0 if exchange.finished is None else exchange.finished - exchange.started
        first = None if exchange.first_byte is None else exchange.first_byte - exchange.started
        when = (stored_text(exchange.request_id), exchange.started_at, exchange.started_at + seconds)
        return (*when, *_before_times(exchange), first, seconds, *self._after_times(exchange))

    def rows_like(self, template: Exchange, hits: Iterable[RepeatHit]) -> Iterator[Row]:
        """Makes the rows of requests that had the answer of ``template``, one by one as they are read."""
        before, after = _before_times(template), self._after_times(template)
        for hit in hits:
            when = (stored_text(hit.request_id), hit.started_at, hit.started_at + hit.seconds)
            yield (*when, *before, hit.seconds, hit.seconds, *after)

    def finished(self, rows: Sequence[Row]) -> Sequence[Row]:
        """The rows as they are written: nothing in the bodies and errors that must not be kept. Blocks for as long as
        it takes."""
        if not self._redactor:
            return rows
        # hits of one answer share its bodies
        seen: dict[int, bytes | None] = {}
        return [self._redacted(row, seen, self._redactor) for row in rows]

    def _redacted(self, row: Row, seen: dict[int, bytes | None], redactor: Redactor) -> Row:
        for body in row[-2:]:
            if id(body) not in seen:
                seen[id(body)] = self._search(body, redactor)
        request_body, response_body = (seen[id(body)] for body in row[-2:])
        size = len(request_body or b"") + len(response_body or b"")
        error = stored_text(redactor.text(row[_ERROR])) if row[_ERROR] else ""
        between = row[_ERROR + 1 : BODY_BYTES]
        return (*row[:_ERROR], error, *between, size, *row[BODY_BYTES + 1 : -2], request_body, response_body)

    def _search(self, body: bytes | None, redactor: Redactor) -> bytes | None:
        if body is None or self._body_bytes is None:
            return body
        found = redactor.redacted(body)
        if len(body) == self._body_bytes + _MARGIN:
            last = found.rfind(REDACTED.encode(), -_MARGIN)
            found = found[: max(0, len(found) - _MARGIN) if last < 0 else last + len(REDACTED)]
        return found[: self._body_bytes]

    def _after_times(self, exchange: Exchange) -> Row:
        request_body, response_body = self._body(exchange.request_body), self._body(exchange.response_body)
        return (
            exchange.upstream_seconds,
            stored_text(exchange.error),
            len(request_body or b"") + len(response_body or b""),
            self._detail(exchange),
            request_body,
            response_body,
        )

    def _body(self, body: bytes) -> bytes | None:
        if not body or self._body_bytes is None:
            return None
        kept = self._body_bytes + _MARGIN if self._redactor else self._body_bytes
        return body if len(body) <= kept else body[:kept]

    def _detail(self, exchange: Exchange) -> str:
        """JSON of what nobody selects by. ``phases`` in microseconds; ``scope`` and ``query`` are digests, as both may
        hold secrets or stand for them; ``plain_query`` is a query that holds none; ``cut`` names the bodies that were
        longer. What is empty is left out."""
        detail: dict[str, Any] = {}
        if exchange.phases:
            # ``value`` of a member costs five times as much
            detail["phases"] = {phase._value_: int(seconds * 1e6) for phase, seconds in exchange.phases.items()}
        if exchange.identity:
            detail["identity"] = stored_text(exchange.identity)
        if exchange.caller.scope:
            detail["scope"] = short_digest(exchange.caller.scope.encode())
        if exchange.query:
            detail["query"] = short_digest(exchange.query)
            if _PLAIN_QUERY.fullmatch(exchange.query):
                detail["plain_query"] = exchange.query.decode()
        if self._body_bytes is not None:
            bodies = {"request": exchange.request_body, "response": exchange.response_body}
            if cut := [name for name, body in bodies.items() if len(body) > self._body_bytes]:
                detail["cut"] = cut
        return orjson.dumps(detail).decode()


def short_digest(secret: bytes) -> str:
    """Twelve hex digits that tell secrets apart and give none away."""
    return sha256(secret).hexdigest()[:12]


def _before_times(exchange: Exchange) -> Row:
    user, session, caller, method, path, model, upstream, namespace = _stored_texts(
        exchange.user or exchange.caller.name,
        exchange.session,
        exchange.caller.name,
        exchange.method,
        exchange.path,
        exchange.model,
        exchange.upstream,
        exchange.namespace,
    )
    return (
        *(user, session, caller, exchange.endpoint, method, path, model, upstream),
        exchange.status,
        _word(exchange.cache),
        _word(exchange.reason),
        _word(exchange.stored),
        *(exchange.key, namespace),
        exchange.stream,
        _count(exchange.usage.prompt_tokens),
        _count(exchange.usage.completion_tokens),
        exchange.phases.get(Phase.LIMIT),
    )


def stored_text(text: str) -> str:
    """A text as rows hold it and queries compare it: no lone surrogates, no NUL (PostgreSQL), and not too long."""
    if text.isprintable() and len(text) <= LONGEST_TEXT:
        return text
    return text[:LONGEST_TEXT].encode("utf-8", "replace").decode().replace("\0", "")


def _stored_texts(*texts: str) -> Iterable[str]:
    """Several of them: as a rule one look finds that all can stay as they are."""
    together = "".join(texts)
    return texts if together.isprintable() and len(together) <= LONGEST_TEXT else map(stored_text, texts)


def _word(word: StrEnum | None) -> str:
    return "" if word is None else word.value


def _count(tokens: int | None) -> int | None:
    """A number of tokens within the column's range: an upstream may claim any, and must not cost the row."""
    return None if tokens is None else max(0, min(tokens, LARGEST))
