"""Ollama. Every tag has a digest of everything behind it: weights, template, parameters."""

from typing import Any

import orjson

from llmproxy.config.settings import Settings
from llmproxy.upstream.body import with_usage
from llmproxy.upstream.embedders import embedders
from llmproxy.upstream.identity import digest
from llmproxy.upstream.listing import listed
from llmproxy.upstream.target import Adapted, Document, Fetch, Reading


class Ollama:
    name = "ollama"

    async def read(self, fetch: Fetch) -> Reading | None:
        about = await fetch("/api/version")
        version = about.get("version") if isinstance(about, dict) else None
        if not isinstance(version, str):
            return None
        listing = await fetch("/api/tags")
        tags = _tags(listing)
        models = listed(await fetch("/v1/models"))
        identities = {name: digest({"digest": tag, "version": version}) for name, tag in tags.items()}
        return Reading(models, identities, embedders=embedders(listing))

    def canonical(self, model: str) -> str:
        """A name without a tag means ``latest``."""
        return model if not model or ":" in model.rpartition("/")[2] else f"{model}:latest"

    def adapt(self, endpoint: str, body: Document, stream: bool, settings: Settings) -> Adapted:
        return Adapted(orjson.dumps(with_usage(endpoint, body) if stream else body), stream)


def _tags(document: Any) -> dict[str, str]:
    """Digest by name."""
    models = document.get("models") if isinstance(document, dict) else None
    return {
        model["name"]: model["digest"]
        for model in (models if isinstance(models, list) else ())
        if isinstance(model, dict) and isinstance(model.get("name"), str) and isinstance(model.get("digest"), str)
    }
