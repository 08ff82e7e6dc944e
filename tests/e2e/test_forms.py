"""Plain or as a stream, whichever came first: what llama.cpp itself says in that form."""

from typing import Any

import httpx
import orjson
import pytest

from llmproxy.wire.framing import sse_data
from tests.e2e.asking import CITY_SCHEMA, body, chat
from tests.llama import Llama
from tests.server import Proxy

CHAT, COMPLETIONS = "/v1/chat/completions", "/v1/completions"
PREFILLED = [{"role": "user", "content": "Say hello."}, {"role": "assistant", "content": "Hello, my"}]


def said(heard: httpx.Response) -> Any:
    """All that a caller reads of an answer: texts, log probabilities, reasons to end, usage."""
    assert heard.status_code == 200, heard.text
    if heard.headers["content-type"].startswith("application/json"):
        document = heard.json()
        texts = [_texts(choice, choice.get("message") or choice) for choice in document["choices"]]
        return texts, document["usage"]["completion_tokens"], set(document)
    events = [event + b"\n\n" for event in heard.content.split(b"\n\n")[:-1]]
    chunks = [orjson.loads(data) for event in events if (data := sse_data(event)) not in (b"[DONE]", b"null")]
    choices = [choice for chunk in chunks for choice in chunk["choices"]]
    return [_texts(choice, choice.get("delta") or choice) for choice in choices], [set(chunk) for chunk in chunks]


def _texts(choice: dict[str, Any], holder: dict[str, Any]) -> Any:
    logged = [token["token"] for token in (choice.get("logprobs") or {}).get("content") or ()]
    return choice["index"], holder.get("content", holder.get("text")), logged, choice["finish_reason"]


@pytest.mark.parametrize("first", [True, False], ids=["stream first", "plain first"])
@pytest.mark.parametrize(
    ("path", "more"),
    [
        (CHAT, {}),
        (CHAT, {"messages": PREFILLED}),
        (CHAT, {"logprobs": True, "top_logprobs": 1, "stop": ["llo"]}),
        (CHAT, {"max_tokens": 4, "response_format": {"type": "json_schema", "json_schema": {"schema": CITY_SCHEMA}}}),
        (CHAT, {"n": 2}),
        (COMPLETIONS, {"prompt": "🦙🦙🦙🦙", "max_tokens": 7}),
        (COMPLETIONS, {"prompt": ["Once", "Two"], "max_tokens": 2}),
    ],
    ids=str,
)
def test_each_form_is_the_servers_own(
    llama: Llama, llama_front: Proxy, path: str, more: dict[str, Any], first: bool
) -> None:
    asked = {**body(chat()), **more}
    if path == COMPLETIONS:
        del asked["messages"]
    # llama.cpp closes a connection that was idle for 5 s: each question gets one of its own
    with httpx.Client(timeout=60, trust_env=False, limits=httpx.Limits(max_keepalive_connections=0)) as http:
        for form in (first, not first, first, not first):
            wanted = http.post(llama.url + path, json=asked | {"stream": form})
            heard = http.post(llama_front.url + path, json=asked | {"stream": form})
            assert heard.headers["content-type"].partition(";")[0] == wanted.headers["content-type"].partition(";")[0]
            assert said(heard) == said(wanted)
