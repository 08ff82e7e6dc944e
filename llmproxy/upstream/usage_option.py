"""Changes of request bodies that several kinds of upstream share. Pure; the body given is left as it is."""

from llmproxy.upstream.target import Document

_COUNTED = frozenset({"chat", "completions"})


def with_usage(endpoint: str, body: Document) -> Document:
    """A streamed chat or completions request that asks for usage, whether the caller did or not."""
    if endpoint not in _COUNTED:
        return body
    options = body.get("stream_options")
    if options is None:
        options = {}
    if not isinstance(options, dict) or options.get("include_usage"):
        # asked for already, or the upstream's to refuse
        return body
    return body | {"stream_options": options | {"include_usage": True}}
