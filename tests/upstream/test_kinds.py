"""Every kind of upstream: what it reads out of a server's words, and what it sends for a request."""

import asyncio
import copy
from collections.abc import Mapping
from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmproxy.config.settings import UpstreamStream
from llmproxy.upstream.kinds import BY_NAME, GENERIC, KINDS
from llmproxy.upstream.target import Adapted, Fetch, Kind, ServerInfo
from llmproxy.wire.errors import UpstreamBroke
from tests.upstream.configured import configured

AUTO = configured()
AS_ASKED = configured(upstream_stream=UpstreamStream.AS_ASKED)

LLAMA = BY_NAME["llama.cpp"]
OLLAMA = BY_NAME["ollama"]

PROPS: dict[str, Any] = {
    "default_generation_settings": {"params": {"temperature": 0.8, "seed": 4294967295}, "n_ctx": 1024},
    "total_slots": 4,
    "model_path": "/models/a.gguf",
    "model_ftype": "Q4_1",
    "modalities": {"vision": False},
    "media_marker": "<__media_1__>",
    "chat_template": "{{ messages }}",
    "build_info": "b1",
    "is_sleeping": False,
}
LISTED: dict[str, Any] = {
    "object": "list",
    "data": [{"id": "a", "object": "model", "created": 1, "owned_by": "llamacpp", "meta": {"n_params": 134515008}}],
}
TAGS = {"models": [{"name": "m:latest", "digest": "d1"}, {"name": "m:7b", "digest": "d2"}]}
OLLAMA_LISTED = {"data": [{"id": "m:latest"}, {"id": "m:7b"}]}


def server(pages: Mapping[str, Any]) -> Fetch:
    async def fetch(path: str) -> Any:
        return pages.get(path)

    return fetch


def llama(props: Any = None, listed: Any = None) -> Fetch:
    return server({"/props": props or PROPS, "/v1/models": listed or LISTED})


def ollama(tags: Any = None, version: str = "0.12.1") -> Fetch:
    return server({"/api/version": {"version": version}, "/api/tags": tags or TAGS, "/v1/models": OLLAMA_LISTED})


async def read(kind: Kind, fetch: Fetch) -> ServerInfo:
    reading = await kind.read(fetch)
    assert reading is not None
    return reading


@pytest.mark.parametrize(
    ("fetch", "name"),
    [
        (llama(), "llama.cpp"),
        (ollama(), "ollama"),
        (server({"/v1/models": OLLAMA_LISTED}), "openai"),
        (server({}), "openai"),
        # LM Studio answers unknown paths with 200
        (server({path: {"error": "Unexpected endpoint"} for path in ("/props", "/api/version")}), "openai"),
    ],
)
async def test_a_server_is_recognised(fetch: Fetch, name: str) -> None:
    recognised = [kind.name for kind in KINDS if await kind.read(fetch) is not None]
    assert recognised[0] == name


async def test_one_model_of_llamacpp_answers_to_every_name() -> None:
    reading = await read(LLAMA, llama())
    assert [model["id"] for model in reading.models] == ["a"]
    assert reading.default == reading.identities["a"]
    assert len(reading.identities["a"]) == 64


async def test_of_several_models_each_has_an_identity_and_no_other_name_has() -> None:
    listed = {"data": [{"id": "a"}, {"id": "b"}]}
    reading = await read(LLAMA, llama(listed=listed))
    assert reading.default is None
    assert len(set(reading.identities.values())) == 2


async def test_a_llamacpp_that_lists_nothing_still_has_an_identity() -> None:
    fetch = server({"/props": PROPS})
    reading = await read(LLAMA, fetch)
    assert reading.models == ()
    assert reading.default == (await read(LLAMA, fetch)).default


def changed(document: dict[str, Any], *path: str | int, to: Any) -> dict[str, Any]:
    document = copy.deepcopy(document)
    place: Any = document
    for step in path[:-1]:
        place = place[step]
    place[path[-1]] = to
    return document


@pytest.mark.parametrize(
    ("props", "listed"),
    [
        (changed(PROPS, "model_path", to="/models/b.gguf"), LISTED),
        (changed(PROPS, "model_ftype", to="Q8_0"), LISTED),
        (changed(PROPS, "chat_template", to="{{ other }}"), LISTED),
        (changed(PROPS, "build_info", to="b2"), LISTED),
        (changed(PROPS, "modalities", "vision", to=True), LISTED),
        (changed(PROPS, "default_generation_settings", "params", "temperature", to=0.7), LISTED),
        (changed(PROPS, "default_generation_settings", "n_ctx", to=2048), LISTED),
        (PROPS, changed(LISTED, "data", 0, "meta", "n_params", to=7)),
        (PROPS, changed(LISTED, "data", 0, "id", to="b")),
    ],
)
async def test_whatever_changes_the_answers_changes_the_identity(props: Any, listed: Any) -> None:
    assert (await read(LLAMA, llama(props, listed))).default != (await read(LLAMA, llama())).default


@pytest.mark.parametrize(
    ("props", "listed"),
    [
        (changed(PROPS, "media_marker", to="<__media_2__>"), LISTED),
        (changed(PROPS, "is_sleeping", to=True), LISTED),
        (changed(PROPS, "total_slots", to=8), LISTED),
        (changed(PROPS, "default_generation_settings", "is_processing", to=True), LISTED),
        (dict(reversed(PROPS.items())), LISTED),
        (PROPS, changed(LISTED, "data", 0, "created", to=2)),
    ],
)
async def test_whatever_does_not_leaves_it(props: Any, listed: Any) -> None:
    assert (await read(LLAMA, llama(props, listed))).default == (await read(LLAMA, llama())).default


async def test_older_builds_whose_settings_are_flat_have_an_identity_too() -> None:
    older = changed(PROPS, "default_generation_settings", to={"temperature": 0.8})
    other = changed(PROPS, "default_generation_settings", to={"temperature": 0.9})
    assert (await read(LLAMA, llama(older))).default != (await read(LLAMA, llama(other))).default


async def test_ollamas_digest_and_version_are_the_identity() -> None:
    before = (await read(OLLAMA, ollama())).identities
    pulled = (await read(OLLAMA, ollama(changed(TAGS, "models", 0, "digest", to="d3")))).identities
    updated = (await read(OLLAMA, ollama(version="0.13.0"))).identities
    assert set(before) == {"m:latest", "m:7b"}
    assert (before["m:latest"] != pulled["m:latest"], before["m:7b"] == pulled["m:7b"]) == (True, True)
    assert before["m:7b"] != updated["m:7b"]


@pytest.mark.parametrize(
    ("name", "canonical"),
    [
        ("m", "m:latest"),
        ("m:7b", "m:7b"),
        ("hf.co/a/b", "hf.co/a/b:latest"),
        ("host:5000/a", "host:5000/a:latest"),
        ("", ""),
    ],
)
def test_ollama_takes_a_name_without_a_tag_for_the_latest(name: str, canonical: str) -> None:
    assert OLLAMA.canonical(name) == canonical


async def test_an_ollama_whose_list_of_loaded_models_fails_is_read_all_the_same() -> None:
    pages = ollama()

    async def fetch(path: str) -> Any:
        if path == "/api/ps":
            raise UpstreamBroke("closed")
        return await pages(path)

    assert await read(OLLAMA, fetch) == await read(OLLAMA, pages)


async def test_ollama_tells_which_models_only_embed() -> None:
    capable = {
        "e:latest": ["embedding"],
        "m:latest": ["completion", "tools"],
        "both": ["embedding", "completion"],
        "old": None,
        "new": [],
    }
    tags = {"models": [{"name": name, "digest": name, "capabilities": can} for name, can in capable.items()]}
    assert (await read(OLLAMA, ollama(tags))).embedders == {"e:latest"}
    untagged = {"models": [{"name": "E", "digest": "1", "capabilities": ["embedding"]}]}
    assert (await read(OLLAMA, ollama(untagged))).embedders == {"e:latest"}
    assert (await read(OLLAMA, ollama())).embedders == frozenset()


async def test_entries_of_the_list_are_made_whole() -> None:
    listed = {"data": [{"id": "x", "extra": 1}, {"id": 7}, "no", {"id": ""}]}
    reading = await read(GENERIC, server({"/v1/models": listed}))
    assert reading.models == ({"object": "model", "created": 0, "owned_by": "", "id": "x", "extra": 1},)
    assert reading.identities == {"x": "x"}


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats(allow_nan=False) | st.text(max_size=3),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                ["data", "id", "models", "name", "digest", "version", "default_generation_settings", "meta", "params"]
            ),
            inner,
            max_size=3,
        )
    ),
    max_leaves=10,
)


@settings(max_examples=300, deadline=None)
@given(st.sampled_from(KINDS), st.lists(JSON, min_size=4, max_size=4))
async def test_whatever_a_server_says_is_read_or_not_but_breaks_nothing(kind: Kind, said: list[Any]) -> None:
    paths = ("/props", "/v1/models", "/api/version", "/api/tags")
    reading = await kind.read(server(dict(zip(paths, said, strict=True))))
    assert reading is None or all(isinstance(identity, str) for identity in reading.identities.values())


def sent(adapted: Adapted) -> dict[str, Any]:
    document: dict[str, Any] = orjson.loads(adapted.body)
    return document


CHAT: dict[str, Any] = {"model": "m", "messages": [{"role": "user", "content": "Hi"}], "x_unknown": {"b": 1, "a": 2}}
COMPLETION: dict[str, Any] = {"model": "m", "prompt": "Hi"}


@pytest.mark.parametrize("kind", KINDS, ids=[kind.name for kind in KINDS])
@pytest.mark.parametrize(("endpoint", "body"), [("chat", CHAT), ("completions", COMPLETION)])
@pytest.mark.parametrize("options", [None, {"include_usage": False, "include_obfuscation": False}])
def test_every_stream_is_asked_for_its_usage(kind: Kind, endpoint: str, body: Any, options: Any) -> None:
    request = body | {"stream": True} | ({"stream_options": options} if options else {})
    before = copy.deepcopy(request)
    adapted = kind.adapt(endpoint, request, True, AUTO)
    assert sent(adapted) == request | {"stream_options": (options or {}) | {"include_usage": True}}
    assert adapted.stream
    assert request == before


@pytest.mark.parametrize("kind", KINDS, ids=[kind.name for kind in KINDS])
@pytest.mark.parametrize("endpoint", ["embeddings", "rerank", "messages", "ollama-chat"])
@pytest.mark.parametrize("stream", [True, False])
def test_other_endpoints_bodies_are_left_as_they_are(kind: Kind, endpoint: str, stream: bool) -> None:
    body = {"model": "m", "input": ["a"], "stream": stream}
    adapted = kind.adapt(endpoint, body, stream, AUTO)
    assert (sent(adapted), adapted.stream, adapted.repair) == (body, stream, None)


@pytest.mark.parametrize("kind", [OLLAMA, GENERIC], ids=["ollama", "openai"])
@pytest.mark.parametrize("endpoint", ["chat", "completions", "responses"])
def test_plain_requests_stay_plain_where_the_server_notices_who_leaves(kind: Kind, endpoint: str) -> None:
    adapted = kind.adapt(endpoint, CHAT | {"store": True}, False, AUTO)
    assert (sent(adapted), adapted.stream, adapted.repair) == (CHAT | {"store": True}, False, None)


@pytest.mark.parametrize(("endpoint", "body"), [("chat", CHAT), ("completions", COMPLETION)])
def test_plain_requests_go_to_llamacpp_as_streams(endpoint: str, body: dict[str, Any]) -> None:
    adapted = LLAMA.adapt(endpoint, body | {"n": 1, "logprobs": False}, False, AUTO)
    assert adapted.stream
    assert adapted.repair is None
    assert sent(adapted) == body | {
        "n": 1,
        "logprobs": False,
        "stream": True,
        "stream_options": {"include_usage": True},
    }


def test_unless_the_settings_say_so() -> None:
    adapted = LLAMA.adapt("chat", CHAT, False, AS_ASKED)
    assert (sent(adapted), adapted.stream) == (CHAT, False)


@pytest.mark.parametrize(
    ("endpoint", "field"),
    [
        ("chat", {"logprobs": True}),
        ("chat", {"logprobs": True, "top_logprobs": 3}),
        ("chat", {"n_probs": 5}),
        ("chat", {"n": 2}),
        ("chat", {"n": "2"}),
        ("chat", {"timings_per_token": True}),
        ("chat", {"verbose": True}),
        ("chat", {"response_fields": ["content"]}),
        ("chat", {"response_format": {"type": "json_object"}}),
        ("chat", {"json_schema": {"type": "object"}}),
        ("chat", {"grammar": 'root ::= "a"'}),
        ("chat", {"messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "He"}]}),
        ("completions", {"logprobs": 1}),
        ("completions", {"echo": True}),
        ("completions", {"best_of": 2}),
        ("completions", {"prompt": ["a", "b"]}),
        ("completions", {"prompt": [[1, 2], [3]]}),
    ],
)
def test_or_the_stream_would_say_less(endpoint: str, field: dict[str, Any]) -> None:
    adapted = LLAMA.adapt(endpoint, CHAT | field, False, AUTO)
    assert (sent(adapted), adapted.stream, adapted.both) == (CHAT | field, False, False)
    streamed = LLAMA.adapt(endpoint, CHAT | field, True, AUTO)
    assert (streamed.stream, streamed.both) == (True, False)


@pytest.mark.parametrize("field", [{"response_format": {"type": "text"}}, {"grammar": ""}, {"json_schema": {}}])
def test_no_format_is_none(field: dict[str, Any]) -> None:
    assert LLAMA.adapt("chat", CHAT | field, False, AUTO).both


@pytest.mark.parametrize("options", [[], "x", {"include_usage": True}, {"include_usage": "yes"}])
def test_options_that_are_none_are_the_upstreams_to_refuse(options: Any) -> None:
    body = CHAT | {"stream_options": options}
    assert sent(GENERIC.adapt("chat", body, True, AUTO)) == body


def test_one_prompt_of_tokens_can_be_streamed() -> None:
    assert LLAMA.adapt("completions", {"prompt": [1, 2, 3]}, False, AUTO).stream


@pytest.mark.parametrize("stream", [True, False])
def test_responses_of_llamacpp_are_streamed_and_mended(stream: bool) -> None:
    body = {"model": "m", "input": "Hi", "stream": stream, "background": False, "store": True, "metadata": {"a": "b"}}
    adapted = LLAMA.adapt("responses", body, stream, AUTO)
    assert sent(adapted) == {"model": "m", "input": "Hi", "stream": True}
    assert adapted.stream
    assert adapted.repair is not None


def test_responses_are_always_streams_because_only_these_are_mended() -> None:
    adapted = LLAMA.adapt("responses", {"input": "Hi"}, False, AS_ASKED)
    assert orjson.loads(adapted.body) == {"input": "Hi", "stream": True}
    assert adapted.repair is not None


def test_the_format_of_responses_is_told_in_chats_terms() -> None:
    schema = {"type": "object", "properties": {"b": {"maximum": orjson.Fragment(b"1e3")}, "a": {}}}
    form = {"type": "json_schema", "name": "n", "schema": schema, "strict": True}
    adapted = LLAMA.adapt("responses", {"input": "Hi", "text": {"format": form}}, True, AUTO)
    assert (
        b'"response_format":{"type":"json_schema","json_schema":{"name":"n","schema":'
        b'{"type":"object","properties":{"b":{"maximum":1e3},"a":{}}},"strict":true}}' in adapted.body
    )


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ({"format": {"type": "json_object"}}, {"type": "json_object"}),
        ({"format": {"type": "text"}}, None),
        ({"verbosity": "low"}, None),
        ({"format": "json"}, None),
        ("plain", None),
        (None, None),
    ],
)
def test_other_formats(text: Any, wanted: Any) -> None:
    assert sent(LLAMA.adapt("responses", {"input": "Hi", "text": text}, True, AUTO)).get("response_format") == wanted


@pytest.mark.parametrize(
    ("asked", "listed"),
    [
        ("m", "m:latest"),
        (" M:7B ", "m:7b"),
        ("library/m", "m:latest"),
        ("registry.ollama.ai/library/m", "m:latest"),
        ("https://registry.ollama.ai/library/m:latest", "m:latest"),
        ("user/m", "user/m:latest"),
        ("hf.co/User/M:Q4_K_M", "hf.co/user/m:q4_k_m"),
        ("localhost:5000/library/m", "localhost:5000/library/m:latest"),
        ("", ""),
    ],
)
def test_ollamas_names_have_one_form(asked: str, listed: str) -> None:
    assert OLLAMA.canonical(asked) == listed == OLLAMA.canonical(listed)


async def test_a_context_is_told_while_a_model_is_loaded_and_stands_afterwards() -> None:
    pages: dict[str, Any] = {"/api/version": {"version": "1"}, "/api/tags": TAGS, "/v1/models": OLLAMA_LISTED}
    unloaded = (await read(OLLAMA, server(pages))).identities["m:latest"]
    loaded = pages | {"/api/ps": {"models": [{"name": "m:latest", "context_length": 4096}]}}
    told = (await read(OLLAMA, server(loaded))).identities
    assert told["m:latest"] == f"{unloaded}:4096"
    assert told["m:7b"] == (await read(OLLAMA, server(pages))).identities["m:7b"]
    again = await OLLAMA.read(server(pages), told)
    assert again is not None
    assert again.identities == told
    upgraded = await OLLAMA.read(server(pages | {"/api/version": {"version": "2"}}), told)
    assert upgraded is not None
    assert ":" not in upgraded.identities["m:latest"], "another version is another process"


def with_adapters(*scales: float, asleep: bool = False) -> dict[str, Any]:
    adapters = [{"id": at, "path": f"/{at}.gguf", "scale": scale} for at, scale in enumerate(scales)]
    return {"/props": PROPS | {"is_sleeping": asleep}, "/v1/models": LISTED, "/lora-adapters": adapters}


async def test_scales_of_adapters_are_part_of_an_identity() -> None:
    told = [(await read(LLAMA, server(with_adapters(*scales)))).default for scales in ((), (0.0,), (1.0,), (1.0, 0.0))]
    assert len(set(told)) == 4
    assert (await read(LLAMA, server(with_adapters(1.0)))).identities["a"] == told[2]


async def test_a_server_that_sleeps_is_not_asked_what_would_wake_it() -> None:
    awake = await read(LLAMA, server(with_adapters(0.5)))
    asked: list[str] = []

    async def sleeping(path: str) -> Any:
        asked.append(path)
        return with_adapters(asleep=True).get(path)

    assert await LLAMA.read(sleeping, awake.identities) == awake
    assert asked == ["/props", "/v1/models"]


async def test_a_long_prompt_does_not_take_the_identity_from_a_server_without_adapters() -> None:
    before = await read(LLAMA, llama())

    async def busy(path: str) -> Any:
        if path == "/lora-adapters":
            await asyncio.Event().wait()
        return with_adapters().get(path)

    assert await LLAMA.read(busy, before.identities) == before


async def test_aliases_of_llamacpp_are_names_of_the_model() -> None:
    listed = {"data": [{"id": "a", "aliases": ["x", "y"]}, {"id": "b"}]}
    identities = (await read(LLAMA, llama(listed=listed))).identities
    assert identities["x"] == identities["y"] == identities["a"] != identities["b"]
