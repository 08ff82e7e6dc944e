"""The full-text index of prompts and answers: what the words of a text are, and which texts an exchange has.

A word is letters and digits of any script, whatever their case. Scripts that put no spaces between words are taken
character by character, so that any part of a sentence is found as a phrase. Punctuation parts words:
``messages[0].content`` is the phrase "messages 0 content".
"""

import asyncio
import logging
import re
from collections.abc import Callable, Iterator, Sequence
from typing import Any
from unicodedata import normalize

import orjson
from sqlalchemy import bindparam, literal_column, select

from llmproxy.database.breaker import OnFault, ignore
from llmproxy.database.engine import Database
from llmproxy.database.faults import fault_of
from llmproxy.history.projector import advance_checkpoint, checkpoint
from llmproxy.history.tables import HISTORY_TEXTS, history

#: a longer word, a hash or encoded data, is cut
LONGEST_WORD = 100

# Thai, Lao, Tibetan, Myanmar, Khmer; kana, bopomofo, Han with its extensions
_SPACELESS = (
    "\u0e00-\u0eff\u0f00-\u0fff\u1000-\u109f\u1780-\u17ff"
    "\u3005-\u3007\u3040-\u312f\u31a0-\u31bf\u31f0-\u31ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
)
# signs that Python counts as no letters, although words of Indic and other scripts consist of them; not the danda
_MARKS = (
    "\u0300-\u036f\u0483-\u0487\u0591-\u05bd\u05bf\u05c1\u05c2\u05c4\u05c5\u05c7"
    "\u0610-\u061a\u064b-\u065f\u0670\u0900-\u0963\u0966-\u0dff"
)
_WORD = re.compile(f"[{_SPACELESS}]|(?:[^\\W_{_SPACELESS}]|[{_MARKS}])+")
#: ASCII's letters small, its digits as they are, and a space for all else
_ASCII = "".join(chr(code).lower() if chr(code).isalnum() else " " for code in range(128))
# Signs in a row that no text has: putting them in order costs the square of their number. The two halfwidth signs are
# letters that become such signs. After thirty a space is put in, as Unicode's stream-safe format puts in a joiner
# (UAX #15, D4).
_STACK = re.compile("(?:[^\\w\\s\x00-\x7f]|[\uff9e\uff9f]){30}")


def words_of(text: str) -> list[str]:
    """The words of a text in order, in lower case, each form of a letter the same."""
    if text.isascii():
        found: list[str] = text.translate(_ASCII).split()
    else:
        found = _WORD.findall(compatible(compatible(text).casefold()))
    if max(map(len, found), default=0) > LONGEST_WORD:
        found = [word[:LONGEST_WORD] for word in found]
    return found


def compatible(text: str) -> str:
    """The text with each form of a letter the same (NFKC)."""
    return normalize("NFKC", _STACK.sub(r"\g<0> ", text))


def phrases_of(query: str) -> list[list[str]]:
    """The phrases of a search: each part between spaces is one. Nothing in it is an operator."""
    return [phrase for part in query.split() if (phrase := words_of(part))]


#: words of one body that are indexed: of a longer one its beginning and its end, where the news is
MOST_WORDS = 8_000
#: the bytes of these words: PostgreSQL takes a megabyte for both bodies
MOST_BYTES = 400_000

#: members that say nothing: names, kinds, settings, and the tools' schemas, which are the same in each request
_SILENT = frozenset(
    {"id", "object", "model", "role", "type", "status", "created_at", "user", "metadata", "service_tier"}
    | {"finish_reason", "done_reason", "stop_reason", "system_fingerprint", "signature", "encrypted_content"}
    | {"tools", "functions", "tool_choice", "response_format", "format", "encoding_format"}
    | {"tool_call_id", "call_id", "item_id", "embedding", "embeddings", "data", "logprobs"}
)
#: without a space in between, this many characters are data
_LONGEST_RUN = 2_000
_SPACE = re.compile(r"\s")
_ESCAPED = re.compile(r"\\u([0-9a-fA-F]{4})")
_ESCAPE = re.compile(r"\\.")


def spoken_words(request: bytes | None, response: bytes | None) -> list[str]:
    """The words of a prompt and its answer, in this order."""
    return [*_words(request), *_words(response)]


def _words(body: bytes | None) -> list[str]:
    words: list[str] = []
    for text in _texts_in(body):
        words += words_of(text)
    if len(words) > MOST_WORDS:
        words = _ends(words, MOST_WORDS)
    while len("".join(words).encode()) > MOST_BYTES:
        words = _ends(words, len(words) // 2)
    return words


def _ends(words: list[str], count: int) -> list[str]:
    half = count // 2
    return words[:half] + words[-half:]


def _texts_in(body: bytes | None) -> Iterator[str]:
    if not body:
        return
    try:
        document = orjson.loads(body)
    except orjson.JSONDecodeError:
        # a body that was cut: its text is in there, with its escapes
        text = _ESCAPED.sub(lambda found: chr(int(found[1], 16)), body.decode("utf-8", "replace"))
        yield _ESCAPE.sub(" ", text)
    else:
        yield from _spoken(document)


def _spoken(value: Any) -> Iterator[str]:
    # with a stack: a body may be nested deeper than functions may be
    waiting = [value]
    while waiting:
        value = waiting.pop()
        if isinstance(value, str):
            if len(value) <= _LONGEST_RUN or _SPACE.search(value, 0, _LONGEST_RUN):
                yield value
        elif isinstance(value, list):
            waiting += reversed(value)
        elif isinstance(value, dict):
            waiting += [member for name, member in reversed(value.items()) if name not in _SILENT]


logger = logging.getLogger(__name__)

#: rows indexed in one transaction, and bytes of their bodies: the write lock is held for 13 ms, one time in a hundred
#: for 80, when SQLite merges parts of the index
CHUNK = 200
CHUNK_BYTES = 128 * 1024


#: rows (id, bytes of bodies) behind a checkpoint
_BEHIND = select(history.c.id, history.c.body_bytes).where(history.c.id > bindparam("seen"))
_BEHIND = _BEHIND.order_by(history.c.id).limit(bindparam("most")).offset(literal_column("0"))
#: rows (id, request, response) of a chunk
_BODIES = select(history.c.id, history.c.request_body, history.c.response_body)
_BODIES = _BODIES.where(history.c.id > bindparam("seen"), history.c.id <= bindparam("last"))
_BODIES = _BODIES.where(history.c.body_bytes > literal_column("0"))


class Texts:
    """The ``Projection`` that indexes new rows."""

    name = "texts"

    def __init__(self, database: Database, on_fault: OnFault = ignore) -> None:
        """``on_fault`` takes the faults of rows whose words the database refuses."""
        self._database = database
        self._on_fault = on_fault
        self._most = CHUNK
        # every few dozen rows: through SQLAlchemy each takes the driver's thread a dozen turns
        self._behind = database.point_query(_BEHIND, ("seen", "most"))
        self._bodies = database.point_query(_BODIES, ("seen", "last"))

    async def advance(self) -> bool:
        seen = await checkpoint(self._database, self.name)
        last, rows, more = await self._chunk(seen)
        if last == seen:
            return False
        texts = await self._read(seen, last)
        try:
            await self._add(seen, last, texts)
        except Exception as error:
            if fault_of(error).passes:
                raise
            # smaller and smaller chunks find the row that is refused; it stays unfound, and the others do not
            self._most = max(1, rows // 2)
            if rows == 1:
                logger.exception("the words of a row of history were refused by the database")
                self._on_fault(self.name, fault_of(error))
                await self._add(seen, last, [])
            return True
        self._most = min(2 * self._most, CHUNK)
        return more

    async def _read(self, seen: int, last: int) -> list[tuple[int, str]]:
        rows = await self._database.rows(self._bodies, (seen, last))
        return await asyncio.to_thread(_texts, rows, self._database.dialect.encode_text) if rows else []

    async def _chunk(self, seen: int) -> tuple[int, int, bool]:
        """The last row of the next chunk, ``seen`` where there is none; how many there are; and whether there are more
        behind it."""
        rows = await self._database.rows(self._behind, (seen, self._most))
        last, size = seen, 0
        for number, (id, body_bytes) in enumerate(rows):
            size += body_bytes
            if last != seen and size > CHUNK_BYTES:
                return last, number, True
            last = id
        return last, len(rows), len(rows) == self._most

    async def _add(self, seen: int, last: int, texts: Sequence[tuple[int, str]]) -> None:
        still_there = select(history.c.id).where(history.c.id > seen, history.c.id <= last)
        async with self._database.write() as connection:
            if not await advance_checkpoint(connection, self.name, seen, last) or not texts:
                return
            # a row that is deleted at this moment must not leave its words behind
            existing = set((await connection.execute(still_there.with_for_update(read=True, key_share=True))).scalars())
            if existing:
                added = self._database.dialect.insert_text(HISTORY_TEXTS)
                await connection.exec_driver_sql(added, [text for text in texts if text[0] in existing])


def _texts(rows: Sequence[Any], encode_text: Callable[[Sequence[str]], str]) -> list[tuple[int, str]]:
    # hits come by the thousand, and say the same
    texts_of: dict[tuple[bytes | None, bytes | None], str] = {}
    for _, request, response in rows:
        if (request, response) not in texts_of:
            texts_of[request, response] = encode_text(spoken_words(request, response))
    return [(id, text) for id, request, response in rows if (text := texts_of[request, response])]
