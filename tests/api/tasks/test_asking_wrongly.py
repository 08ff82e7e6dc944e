"""What is wrong with a request is said, by name, before anything is done or kept."""

import json
from typing import Any

import httpx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmproxy.api.tasks_model import read_many, read_single
from llmproxy.config.settings import Settings
from llmproxy.wire.errors import BadRequest
from tests.api.tasks.asking import message
from tests.conftest import MakeProxy
from tests.scripted import marker
from tests.scripted_upstream import ScriptedUpstream

ONE, MANY = "/api/completions", "/api/completions/batch"

WRONG: list[tuple[Any, str]] = [
    ({}, "'prompt' is required"),
    ({"prompt": None}, "'prompt' is required"),
    ({"prompt": ""}, "'prompt' must not be empty"),
    ({"prompt": " \n"}, "'prompt' must not be empty"),
    ({"prompt": 7}, "'prompt' must be a string"),
    ({"prompt": ["a"]}, "'prompt' must be a string"),
    ({"prompt": "a", "model": 7}, "'model'"),
    ({"prompt": "a", "model": "m" * 300}, "'model'"),
    ({"prompt": "a", "max_tokens": 0}, "'max_tokens'"),
    ({"prompt": "a", "max_tokens": True}, "'max_tokens'"),
    ({"prompt": "a", "max_tokens": 1.5}, "'max_tokens'"),
    ({"prompt": "a", "max_tokens": "9"}, "'max_tokens'"),
    ({"prompt": "a", "max_tokens": 10**30}, "'max_tokens'"),
    ({"prompt": "a", "temperature": "warm"}, "'temperature'"),
    ({"prompt": "a", "temperature": False}, "'temperature'"),
    ({"prompt": "a", "temperature": -0.1}, "'temperature'"),
    ({"prompt": "a", "temperature": 2.1}, "'temperature'"),
    ({"prompt": "a", "user_id": 5}, "'user_id'"),
    ({"prompt": "a", "user_id": "u" * 129}, "'user_id'"),
    ({"prompt": "a", "session_id": "line\nline"}, "'session_id'"),
    ({"prompt": "a", "instruction_type": "nonesuch"}, "one of code, concise, default, summarize, translate"),
    ({"prompt": "a", "background": 1}, "'background'"),
    ({"prompt": "a", "webhook_url": "http://example.com/"}, "'background': true"),
    ({"prompt": "a", "background": True, "webhook_url": "http://example.com/"}, "LLMPROXY_WEBHOOK_HOSTS"),
    ({"prompt": "a", "promt": "b", "zeal": 1}, "'promt', 'zeal'"),
    (["a"], "JSON object"),
]
WRONG_BATCH: list[tuple[Any, str]] = [
    ({}, "'prompts' is required"),
    ({"prompts": []}, "'prompts'"),
    ({"prompts": "a"}, "'prompts'"),
    ({"prompts": {"0": "a"}}, "'prompts'"),
    ({"prompts": ["a", ""]}, "'prompts[1]' must not be empty"),
    ({"prompts": ["a", "b", 1e5]}, "'prompts[2]' must be a string"),
    ({"prompts": ["a"], "background": True}, "'background'"),
    ({"prompts": ["a"], "temperature": "x"}, "'temperature'"),
    ({"prompts": ["a"], "webhook_url": "http://169.254.169.254/"}, "LLMPROXY_WEBHOOK_HOSTS"),
]


@pytest.mark.parametrize(
    ("path", "body", "said"),
    [(ONE, body, said) for body, said in WRONG] + [(MANY, body, said) for body, said in WRONG_BATCH],
)
async def test_it_is_named_and_leaves_no_trace(http: httpx.AsyncClient, path: str, body: Any, said: str) -> None:
    before = (await http.get("/api/tasks")).json()["data"]
    assert said in message(await http.post(path, json=body), 400)
    assert (await http.get("/api/tasks")).json()["data"] == before


@pytest.mark.parametrize("raw", [b"", b"{", b'{"prompt": "a", "temperature": NaN}', b'{"prompt": "\xff"}'])
async def test_what_is_no_json(http: httpx.AsyncClient, raw: bytes) -> None:
    assert message(await http.post(ONE, content=raw), 400)
    assert message(await http.post(MANY, content=raw), 400)


@pytest.mark.parametrize(
    "headers",
    [{"idempotency-key": "a b"}, {"idempotency-key": "k" * 256}, {"x-llmproxy-ttl": "soon"}],
)
async def test_headers_are_checked_before_a_task_is_made(http: httpx.AsyncClient, headers: dict[str, str]) -> None:
    before = (await http.get("/api/tasks")).json()["data"]
    message(await http.post(ONE, json={"prompt": "a", "background": True}, headers=headers), 400)
    message(await http.post(MANY, json={"prompts": ["a"]}, headers=headers), 400)
    assert (await http.get("/api/tasks")).json()["data"] == before


async def test_limits_are_said(proxy: MakeProxy, upstream: ScriptedUpstream) -> None:
    own = proxy(upstream.url, job_max_prompts=3, max_body_bytes=2000)
    async with httpx.AsyncClient(base_url=own.url, trust_env=False) as client:
        assert (await client.post(MANY, json={"prompts": [marker()] * 3})).status_code == 202
        said = message(await client.post(MANY, json={"prompts": ["a"] * 4}), 413)
        assert "up to 3 prompts (LLMPROXY_JOB_MAX_PROMPTS), not 4" in said
        assert "2000 bytes" in message(await client.post(ONE, json={"prompt": "a" * 3000}), 413)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=9),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=5,
)
WORD = st.text("ab \n", max_size=130) | JSON
OPTIONS = {
    "model": WORD,
    "user_id": WORD,
    "session_id": WORD,
    "max_tokens": st.integers(-1, 9) | JSON,
    "temperature": st.floats(-1, 3) | JSON,
    "background": st.booleans() | JSON,
    "webhook_url": st.just("http://127.0.0.1/") | JSON,
}


@settings(max_examples=200, deadline=None)
@given(st.text("ab \n", min_size=1) | JSON, st.fixed_dictionaries({}, optional=OPTIONS), st.booleans())
def test_an_order_is_right_or_refused(prompt: Any, options: dict[str, Any], single: bool) -> None:
    body = {**options, **({"prompt": prompt} if single else {"prompts": [prompt]})}
    try:
        order = (read_single if single else read_many)(json.dumps(body).encode(), Settings())
    except BadRequest:
        return
    assert list(order.prompts) == [prompt]
    assert prompt.strip()
    assert all(text.isprintable() and len(text) <= 256 for text in (order.model, order.user, order.session))
    assert order.max_tokens is None or order.max_tokens > 0
    assert order.temperature is None or 0 <= order.temperature <= 2
    assert not any(isinstance(number, bool) for number in (order.max_tokens, order.temperature))
    # no host is allowed unless the settings name it
    assert order.webhook_url == ""
