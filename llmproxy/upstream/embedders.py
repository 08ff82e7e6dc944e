"""Which models make embeddings and no text, so that none of them is picked for a caller who names no model. Pure."""

from typing import Any

from llmproxy.upstream.target import Document

#: in the names of models whose server does not tell what they are for
_WORDS = ("embed", "rerank")


def embedders(tags: Any) -> frozenset[str]:
    """The models in the document of Ollama's ``GET /api/tags`` that cannot complete, by what it says they are capable
    of. Of older versions, which do not say, none."""
    models = tags.get("models") if isinstance(tags, dict) else None
    return frozenset(
        model["name"]
        for model in (models if isinstance(models, list) else ())
        if isinstance(model, dict) and isinstance(model.get("name"), str) and _cannot_complete(model)
    )


def _cannot_complete(model: Document) -> bool:
    capabilities = model.get("capabilities")
    return isinstance(capabilities, list) and bool(capabilities) and "completion" not in capabilities


def is_named_as_embedder(model: str) -> bool:
    """Whether its name says that it makes embeddings: all that there is to go by where a server does not tell.

    llama.cpp calls every model capable of completion.
    """
    return any(word in model.lower() for word in _WORDS)
