"""What a server's ``GET /v1/models`` says, read with care. Pure."""

from typing import Any

from llmproxy.upstream.target import Document

#: a list longer than this is not read to its end
_MOST_MODELS = 2000


def listed(document: Any) -> tuple[Document, ...]:
    """The entries of a list of models in OpenAI's shape, each with an id; () for anything else."""
    data = document.get("data") if isinstance(document, dict) else None
    if not isinstance(data, list):
        return ()
    return tuple(
        {"object": "model", "created": 0, "owned_by": "", **entry}
        for entry in data[:_MOST_MODELS]
        if isinstance(entry, dict) and isinstance(entry.get("id"), str) and entry["id"]
    )
