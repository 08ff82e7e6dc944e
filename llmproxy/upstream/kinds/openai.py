"""Any server with OpenAI's shape: LM Studio, vLLM, hosted ones. It does not tell what stands behind a name."""

import orjson

from llmproxy.config.settings import Settings
from llmproxy.upstream.target import NOTHING_KNOWN, Adapted, Document, Fetch, Identities, ServerInfo, listed, with_usage


class OpenAI:
    name = "openai"
    tells = False
    own_paths = ""
    any_case = False
    resumes = False

    async def read(self, fetch: Fetch, previous: Identities = NOTHING_KNOWN) -> ServerInfo | None:
        models = listed(await fetch("/v1/models"))
        return ServerInfo(models, {model["id"]: model["id"] for model in models})

    def canonical(self, model: str) -> str:
        return model

    def adapt(self, endpoint: str, body: Document, stream: bool, settings: Settings) -> Adapted:
        return Adapted(orjson.dumps(with_usage(endpoint, body) if stream else body), stream)
