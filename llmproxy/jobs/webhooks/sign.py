"""Signatures of webhooks, as Standard Webhooks 1.0 has them. Pure."""

import hmac
from base64 import b64decode, b64encode

_PREFIX = "whsec_"


def key_of(secret: str) -> bytes:
    """The key that a secret stands for: base64 after ``whsec_``, else the text itself.

    Raises ``ValueError`` where there is no base64 after the prefix.
    """
    if secret.startswith(_PREFIX):
        return b64decode(secret.removeprefix(_PREFIX), validate=True)
    return secret.encode()


def signature(key: bytes, id: str, timestamp: int, body: bytes) -> str:
    """The value of ``webhook-signature``. ``timestamp`` in Unix seconds."""
    signed = b"%s.%d.%s" % (id.encode(), timestamp, body)
    return "v1," + b64encode(hmac.digest(key, signed, "sha256")).decode()
