"""Header fields: which can be sent (RFC 9110 section 5), and which hold the secrets that a request presents. Pure."""

import re
from collections.abc import Iterable
from hashlib import sha256

_NAME = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_CONTROL = re.compile(rb"[\x00-\x08\x0a-\x1f\x7f]")


def sendable(fields: Iterable[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
    """Those whose name is a token and whose value holds no control character; a server refuses to write the others,
    and the whole response with them."""
    return [(name, value) for name, value in fields if _NAME.fullmatch(name) and not _CONTROL.search(value)]


#: OpenAI's SDKs and most others, Azure's, Google's, Anthropic's. Lower case.
CREDENTIALS = frozenset({b"authorization", b"api-key", b"x-api-key", b"x-goog-api-key"})

_AUTHORIZATION = b"authorization"
_BLANKS = b" \t"


def credentials(headers: Iterable[tuple[bytes, bytes]]) -> list[bytes]:
    """The different secrets in ``headers`` (lower-case names), in their order; empty ones are none."""
    found = (_token(value) if name == _AUTHORIZATION else value for name, value in headers if name in CREDENTIALS)
    return [*dict.fromkeys(secret for each in found if (secret := each.strip(_BLANKS)))]


def bearer_tokens(headers: Iterable[tuple[bytes, bytes]]) -> list[bytes]:
    """The token of each ``Authorization`` header, b"" for one with another scheme than Bearer (RFC 6750)."""
    return [_bearer(value) or b"" for name, value in headers if name == _AUTHORIZATION]


def fingerprint(secrets: Iterable[bytes]) -> str:
    """Hex sha256 of what a caller presents. Several secrets together are another caller than each of them."""
    return sha256(b"\n".join(sorted(secrets))).hexdigest()


def _token(value: bytes) -> bytes:
    """A Bearer token without its scheme; what has another scheme, or none, as it is."""
    token = _bearer(value)
    return value if token is None else token


def _bearer(value: bytes) -> bytes | None:
    """None for another scheme, whose name has no case (RFC 9110 section 11.1)."""
    scheme, _, token = value.strip(_BLANKS).partition(b" ")
    return token.strip(_BLANKS) if scheme.lower() == b"bearer" else None
