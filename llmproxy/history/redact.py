"""Bodies without what the settings say must not be kept. Pure."""

import re
from collections.abc import Iterator, Sequence

import orjson

#: what stands in the place of what was removed
REDACTED = "[redacted]"

#: characters of data that are searched at once: patterns may cost the square of it
_PIECE = 1_000

# hex, base64 and the like: no text, and what patterns for texts are slow on
_DATA = re.compile(f"((?<![A-Za-z0-9+/=_-])[A-Za-z0-9+/=_-]{{{_PIECE},}})")
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
        if body[:64].lstrip()[:1] in (b"{", b"["):
            return _TOKEN.sub(lambda token: self._token(token[0]), body)
        return self._text(body.decode("utf-8", "surrogateescape")).encode("utf-8", "surrogateescape")

    def _token(self, token: bytes) -> bytes:
        if not token.startswith(b'"'):
            number = token.decode()
            return token if self._text(number) == number else orjson.dumps(REDACTED)
        ended = len(token) > 1 and token.endswith(b'"')
        try:
            text: str = orjson.loads(token if ended else token + b'"')
        except orjson.JSONDecodeError:
            # cut in the middle of an escape or a character, or no JSON after all
            text = token[1:].decode("utf-8", "ignore")
        found = self._text(text)
        if found == text:
            return token
        written = orjson.dumps(found)
        return written if ended else written[:-1]

    def _text(self, text: str) -> str:
        for pattern in self._patterns:
            text = "".join(pattern.sub(REDACTED, piece) for piece in _pieces(text))
        return text


def _pieces(text: str) -> Iterator[str]:
    """Texts as a whole, long runs of data in pieces."""
    for number, part in enumerate(_DATA.split(text)):
        size = _PIECE if number % 2 else max(1, len(part))
        for at in range(0, len(part), size):
            yield part[at : at + size]
