"""Ollama. Every tag has a digest of everything behind it: weights, template, parameters.

The server's own setting ``OLLAMA_CONTEXT_LENGTH`` changes answers too. It shows only while a model is loaded, so what
was told last stands for a model that is not.
"""

import asyncio
from typing import Any, TypeVar

import orjson

from llmproxy.config.settings import Settings
from llmproxy.upstream.identity import digest
from llmproxy.upstream.target import NOTHING_KNOWN, Adapted, Document, Fetch, Identities, ServerInfo, listed, with_usage
from llmproxy.wire.errors import UpstreamBroke

Value = TypeVar("Value")

_LOADED_SECONDS = 1.0

#: what a name means that does not say
_REGISTRY, _NAMESPACE, _TAG = "registry.ollama.ai", "library", "latest"


class Ollama:
    name = "ollama"
    tells = True
    own_paths = "/api/"
    any_case = True
    resumes = False

    async def read(self, fetch: Fetch, previous: Identities = NOTHING_KNOWN) -> ServerInfo | None:
        about = await fetch("/api/version")
        version = about.get("version") if isinstance(about, dict) else None
        if not isinstance(version, str):
            return None
        tags, loaded, models = await asyncio.gather(fetch("/api/tags"), _loaded(fetch), fetch("/v1/models"))
        contexts = self._by_name(loaded, "context_length", int)
        identities = {}
        for name, tag in self._by_name(tags, "digest", str).items():
            identity = digest({"digest": tag, "version": version})
            if name in contexts:
                identity = f"{identity}:{contexts[name]}"
            elif previous.get(name, "").startswith(identity + ":"):
                # it is not loaded: it will be loaded as it was the last time
                identity = previous[name]
            identities[name] = identity
        return ServerInfo(listed(models), identities, embedders=frozenset(map(self.canonical, embedders(tags))))

    def canonical(self, model: str) -> str:
        """The name as the list has it, in lower case: without scheme, default registry and namespace, with its tag."""
        name = model.strip()
        if not name or not name.isascii():
            # no name of a model holds anything but ASCII
            return name
        *where, name = name.partition("://")[2].split("/") if "://" in name else name.split("/")
        name, _, tag = name.lower().partition(":")
        where = [part.lower() for part in where]
        if where[:1] == [_REGISTRY]:
            where = where[1:]
        if where == [_NAMESPACE]:
            where = []
        return f"{'/'.join([*where, name])}:{tag or _TAG}"

    def adapt(self, endpoint: str, body: Document, stream: bool, settings: Settings) -> Adapted:
        return Adapted(orjson.dumps(with_usage(endpoint, body) if stream else body), stream)

    def _by_name(self, document: Any, member: str, kind: type[Value]) -> dict[str, Value]:
        """One member of each entry of a list of models, by the entry's canonical name."""
        models = document.get("models") if isinstance(document, dict) else None
        return {
            self.canonical(model["name"]): model[member]
            for model in (models if isinstance(models, list) else ())
            if isinstance(model, dict) and isinstance(model.get("name"), str) and isinstance(model.get(member), kind)
        }


async def _loaded(fetch: Fetch) -> Any:
    """The list of models that are loaded. It only adds to what is known: a server may do without it."""
    try:
        async with asyncio.timeout(_LOADED_SECONDS):
            return await fetch("/api/ps")
    except (TimeoutError, UpstreamBroke):
        return None


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
