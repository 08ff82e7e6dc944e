"""Where a request wants to go, and where it came from. What goes upstream is never decoded and encoded again."""

from starlette.types import Scope

from llmproxy.upstream.headers import Peer


def raw_target(scope: Scope) -> bytes:
    """Path and query as the client sent them."""
    raw: bytes = scope.get("raw_path") or scope["path"].encode()
    query: bytes = scope["query_string"]
    return raw + b"?" + query if query else raw


def peer_of(scope: Scope) -> Peer:
    client = scope.get("client")
    return Peer(client[0] if client else "unknown", scope["scheme"])
