"""The cache key: a digest of everything that can change an answer."""

from hashlib import sha256

#: Grows whenever the same request must no longer find what an earlier version stored.
SCHEMA = b"llmproxy-key-2"


def own_form(key: bytes, stream: bool) -> bytes:
    """Where the answer in one form is kept while what ``key`` finds serves the other form only."""
    return sha256(key + (b"stream" if stream else b"plain")).digest()


def key_of(operation: str, identity: str, scope: str, namespace: str, body: bytes) -> bytes:
    """32 bytes. ``body`` is the canonical body, or its digest; ``identity`` the model's, read from the upstream.

    The parts are length-prefixed, so that no two different lists of parts are the same bytes.
    """
    digest = sha256(SCHEMA)
    for part in (operation.encode(), identity.encode(), scope.encode(), namespace.encode(), body):
        digest.update(b"%d:" % len(part))
        digest.update(part)
    return digest.digest()
