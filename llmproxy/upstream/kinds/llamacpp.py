"""llama.cpp's server, with one model or as a router of several.

It notices that a caller has left only where it streams, so plain requests go out as streams where the answer can be put
together again without loss. Its Responses differ from OpenAI's in ways that SDKs stumble over.
"""

import asyncio
from typing import Any

import orjson

from llmproxy.config.settings import Settings, UpstreamStream
from llmproxy.upstream.identity import digest
from llmproxy.upstream.responses_by_chat import response_format
from llmproxy.upstream.responses_repair import Repair
from llmproxy.upstream.target import NOTHING_KNOWN, Adapted, Document, Fetch, Identities, ServerInfo, listed, with_usage
from llmproxy.wire.errors import UpstreamBroke

#: Of ``GET /props``. Not ``media_marker`` (drawn at every start), ``is_sleeping`` and the like.
_FACTS = ("model_path", "model_ftype", "chat_template", "build_info", "modalities")

#: how long a server is asked for its adapters, and one that had none before
_ADAPTERS_SECONDS, _NO_ADAPTERS_SECONDS = 1.0, 0.15

#: With one of these set, the plain answer says more than the stream, or says it in another form. An answer in a given
#: form (the last three) that is cut off is in the plain answer only.
_OF_ONE_FORM = frozenset(
    {
        "best_of",
        "echo",
        "logprobs",
        "n_probs",
        "post_sampling_probs",
        "response_fields",
        "return_tokens",
        "timings_per_token",
        "top_logprobs",
        "verbose",
        "grammar",
        "json_schema",
        "response_format",
    }
)

#: endpoints whose plain answers are made of their streams
_CHUNKED = frozenset({"chat", "completions"})

#: What it does not know of the Responses API: it would hand these on to the chat template or ignore them.
_RESPONSES_UNKNOWN = frozenset({"background", "metadata", "store"})


class LlamaCpp:
    name = "llama.cpp"
    tells = True
    own_paths = ""
    any_case = False
    resumes = True

    async def read(self, fetch: Fetch, previous: Identities = NOTHING_KNOWN) -> ServerInfo | None:
        props = await fetch("/props")
        if not isinstance(props, dict) or not isinstance(props.get("default_generation_settings"), dict):
            return None
        models = listed(await fetch("/v1/models"))
        facts = _facts(props)
        identities = {model["id"]: _identity(facts, model) for model in models}
        # a server with one model does not look at the request's name for it
        default = _identity(facts, *models) if len(models) <= 1 else None
        adapters: str | None = ""
        if default is not None:
            before = previous.get(models[0]["id"], "") if models else ""
            adapters = await _adapters(fetch, default, before, asleep=props.get("is_sleeping") is True)
            default = None if adapters is None else default + adapters
        identities = {} if adapters is None else {name: identity + adapters for name, identity in identities.items()}
        for model in models:
            aliases = model.get("aliases")
            for alias in aliases if isinstance(aliases, list) and model["id"] in identities else ():
                if isinstance(alias, str):
                    identities.setdefault(alias, identities[model["id"]])
        slots = props.get("total_slots")
        return ServerInfo(models, identities, default, slots if isinstance(slots, int) and slots > 0 else None)

    def canonical(self, model: str) -> str:
        return model

    def adapt(self, endpoint: str, body: Document, stream: bool, settings: Settings) -> Adapted:
        auto = settings.upstream_stream is UpstreamStream.AUTO
        if endpoint == "responses":
            return _responses(body)
        both = endpoint not in _CHUNKED or _has_both_forms(body)
        if not stream and auto and both and endpoint in _CHUNKED:
            return Adapted(orjson.dumps(with_usage(endpoint, body | {"stream": True})), stream=True)
        return Adapted(orjson.dumps(with_usage(endpoint, body) if stream else body), stream, both=both)


async def _adapters(fetch: Fetch, identity: str, before: str, *, asleep: bool) -> str | None:
    """What the scales of LoRA adapters add to an identity: "" where there are none, None where they cannot be told.

    The question waits for the model's own loop: it would wake a server that sleeps, and a long prompt holds it up. So
    it is not asked of one that sleeps, and hardly waited for where there were no adapters before: at run time none are
    added, only their scales change. A server that sleeps has those that it had before.
    """
    if asleep:
        return before.removeprefix(identity) if before.partition(":")[0] == identity else ""
    none_before = before == identity
    try:
        async with asyncio.timeout(_NO_ADAPTERS_SECONDS if none_before else _ADAPTERS_SECONDS):
            identities = await fetch("/lora-adapters")
    except TimeoutError:
        return "" if none_before else None
    except UpstreamBroke:
        # it does not know the question
        return ""
    adapters = [item for item in identities if isinstance(item, dict)] if isinstance(identities, list) else []
    if not adapters:
        return ""
    return ":" + digest([(item.get("id"), item.get("path"), item.get("scale")) for item in adapters])


def _facts(props: Document) -> Document:
    settings = props["default_generation_settings"]
    # older builds show a whole slot here, with what it is doing at the moment
    lasting = {name: settings[name] for name in ("params", "n_ctx") if name in settings} or settings
    return {name: props.get(name) for name in _FACTS} | {"default_generation_settings": lasting}


def _identity(facts: Document, *models: Document) -> str:
    return digest({"props": facts, "models": [(model["id"], model.get("meta")) for model in models]})


def _has_both_forms(body: Document) -> bool:
    """Whether the plain answer and the stream can be made of each other."""
    if body.get("n") not in (None, 1):
        return False
    if any(body.get(name) not in (None, False, 0, "", {}, {"type": "text"}) for name in _OF_ONE_FORM):
        return False
    if _is_prefilled(body.get("messages")):
        return False
    prompt = body.get("prompt")
    return not (isinstance(prompt, list) and any(not isinstance(item, int) for item in prompt))


def _is_prefilled(messages: Any) -> bool:
    """Whether the answer continues a message of the assistant: the plain one begins with it, the stream does not."""
    last = messages[-1] if isinstance(messages, list) and messages else None
    return isinstance(last, dict) and last.get("role") == "assistant"


def _responses(body: Document) -> Adapted:
    """Always as a stream: its plain answers lack what strict parsers require, and only a stream can be mended live."""
    sent = {name: value for name, value in body.items() if name not in _RESPONSES_UNKNOWN}
    if form := response_format(body.get("text")):
        # it reads no text.format, but hands unknown members on to its chat endpoint
        sent["response_format"] = form
    sent["stream"] = True
    return Adapted(orjson.dumps(sent), stream=True, repair=Repair(body))
