"""Changes of request bodies that several kinds of upstream share. Pure; the body given is left as it is."""

from llmproxy.upstream.target import Document

_COUNTED = frozenset({"chat", "completions"})


def with_usage(endpoint: str, body: Document) -> Document:
    """A streamed chat or completions request that asks for usage, whether the caller did or not."""
    if endpoint not in _COUNTED:
        return body
    options = body.get("stream_options")
    return body | {"stream_options": (options if isinstance(options, dict) else {}) | {"include_usage": True}}
