"""What was said in an exchange: the texts of both bodies, without the bookkeeping around them. Pure."""

import re
from collections.abc import Iterator
from typing import Any

import orjson

from llmproxy.history.tokenize import words_of

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


def words_said(request: bytes | None, response: bytes | None) -> list[str]:
    """The words of a prompt and its answer, in this order."""
    return [*_words(request), *_words(response)]


def _words(body: bytes | None) -> list[str]:
    words: list[str] = []
    for text in _texts(body):
        words += words_of(text)
    if len(words) > MOST_WORDS:
        words = _ends(words, MOST_WORDS)
    while sum(len(word.encode()) for word in words) > MOST_BYTES:
        words = _ends(words, len(words) // 2)
    return words


def _ends(words: list[str], count: int) -> list[str]:
    half = count // 2
    return words[:half] + words[-half:]


def _texts(body: bytes | None) -> Iterator[str]:
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
