"""Bodies without what the settings say must not be kept. Pure."""

import re
from collections.abc import Iterator, Sequence

import orjson

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
        """In a JSON document, strings are searched as what they say, escapes resolved; numbers as they are written."""
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
