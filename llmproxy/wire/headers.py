"""Header fields: which can be sent, which hold a caller's secrets, and ``Retry-After``. Pure.

All names are in lower case.
"""

import re
from collections.abc import Iterable
from datetime import UTC
from email.utils import parsedate_to_datetime
from hashlib import sha256

HeaderList = list[tuple[bytes, bytes]]

_NAME = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_CONTROL = re.compile(rb"[\x00-\x08\x0a-\x1f\x7f]")


def sendable(fields: Iterable[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
    """The fields whose name is a token and whose value holds no control character (RFC 9110 section 5).

    A server refuses to write the others, and the whole response with them.
    """
    given = list(fields)
    names = [name for name, _ in given]
    if _NAME.fullmatch(b"".join(names)) and all(names) and not _CONTROL.search(b"".join([value for _, value in given])):
        # as a rule all of them, which two looks find out
        return given
    return [(name, value) for name, value in given if _NAME.fullmatch(name) and not _CONTROL.search(value)]


def content_type(headers: Iterable[tuple[bytes, bytes]]) -> bytes:
    """The value of ``content-type``, empty if there is none."""
    for name, value in headers:
        if name == b"content-type":
            return value
    return b""


def media_type(content_type: bytes) -> bytes:
    """``text/plain`` of ``Text/Plain; charset=utf-8``."""
    return content_type.partition(b";")[0].strip().lower()


#: OpenAI's SDKs and most others, Azure's, Google's, Anthropic's. Lower case.
CREDENTIALS = frozenset({b"authorization", b"api-key", b"x-api-key", b"x-goog-api-key"})

_AUTHORIZATION = b"authorization"
_BLANKS = b" \t"


def credentials(headers: Iterable[tuple[bytes, bytes]]) -> list[bytes]:
    """The different secrets in ``headers``, in their order, without empty ones."""
    found = (_token(value) if name == _AUTHORIZATION else value for name, value in headers if name in CREDENTIALS)
    return [*dict.fromkeys(secret for each in found if (secret := each.strip(_BLANKS)))]


def bearer_tokens(headers: Iterable[tuple[bytes, bytes]]) -> list[bytes]:
    """The token of each ``Authorization`` header, b"" for one with another scheme than Bearer (RFC 6750)."""
    return [_bearer(value) or b"" for name, value in headers if name == _AUTHORIZATION]


def fingerprint(secrets: Iterable[bytes]) -> str:
    """Hex sha256 of a caller's secrets. Several secrets together are a different caller from each of them."""
    return sha256(b"\n".join(sorted(secrets))).hexdigest()


def _token(value: bytes) -> bytes:
    """A Bearer token without its scheme; any other value unchanged."""
    token = _bearer(value)
    return value if token is None else token


def _bearer(value: bytes) -> bytes | None:
    """The token of the scheme Bearer, in any case (RFC 9110 section 11.1); None for another scheme."""
    scheme, _, token = value.strip(_BLANKS).partition(b" ")
    return token.strip(_BLANKS) if scheme.lower() == b"bearer" else None


#: OpenAI's SDKs read the first
_RETRY_AFTER = ((b"retry-after-ms", 0.001), (b"retry-after", 1.0))
_SECONDS = re.compile(rb"[0-9]{1,40}(\.[0-9]{1,6})?")


def retry_after(seconds: int) -> tuple[bytes, bytes]:
    """The field that asks a client to come again after ``seconds``."""
    return b"retry-after", b"%d" % seconds


def retry_after_seconds(headers: Iterable[tuple[bytes, bytes]], now: float) -> float:
    """Seconds that ``retry-after-ms`` or ``retry-after`` asks for, a number or a date (RFC 9110 section 10.2.3), 0 if
    neither can be read. ``now`` is in Unix seconds."""
    values = dict(headers)
    for name, unit in _RETRY_AFTER:
        value = values.get(name, b"").strip(_BLANKS)
        seconds = float(value) * unit if _SECONDS.fullmatch(value) else _seconds_until(value, now)
        if seconds > 0:
            return seconds
    return 0.0


def _seconds_until(date: bytes, now: float) -> float:
    """Seconds until ``date``, negative for a past one, 0 for a value that is not a date."""
    try:
        when = parsedate_to_datetime(date.decode("latin-1"))
        # a date in "-0000" names no zone
        return (when if when.tzinfo else when.replace(tzinfo=UTC)).timestamp() - now
    except (TypeError, ValueError, OverflowError):
        return 0.0
