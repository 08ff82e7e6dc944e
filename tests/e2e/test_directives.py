"""The words of a request about the cache, and flushing, through the client's ``extra_headers``."""

from typing import Any

import httpx
import openai
import pytest

from tests.e2e.asking import chat
from tests.scripted import marker
from tests.server import Proxy


def ask(client: openai.OpenAI, arguments: dict[str, Any], **headers: str) -> httpx.Headers:
    """The response headers of a chat with more request headers: ``cache_control="no-cache"``."""
    extra = {name.replace("_", "-"): value for name, value in headers.items()}
    raw = client.chat.completions.with_raw_response.create(**arguments, extra_headers=extra)
    return httpx.Headers(dict(raw.headers))


def test_only_if_cached(client: openai.OpenAI) -> None:
    arguments = chat(max_tokens=2)
    with pytest.raises(openai.InternalServerError) as caught:
        ask(client, arguments, cache_control="only-if-cached")
    assert caught.value.status_code == 504
    assert caught.value.code == "only_if_cached"
    ask(client, arguments)
    assert ask(client, arguments, cache_control="only-if-cached")["x-cache"] == "HIT"


def test_no_store_neither_reads_nor_keeps(client: openai.OpenAI) -> None:
    arguments = chat(max_tokens=2)
    bypass = ask(client, arguments, cache_control="no-store")
    assert bypass["x-cache"] == "BYPASS"
    assert bypass["cache-status"] == "llmproxy; fwd=bypass; detail=no-store"
    assert ask(client, arguments)["x-cache"] == "MISS"
    assert ask(client, arguments, cache_control="no-store")["x-cache"] == "BYPASS"
    assert ask(client, arguments)["x-cache"] == "HIT"


def test_no_cache_goes_upstream_and_keeps_the_new_answer(client: openai.OpenAI) -> None:
    arguments = chat(max_tokens=4, temperature=1)
    first = client.chat.completions.create(**arguments).id
    fresh = ask(client, arguments, cache_control="no-cache")
    assert fresh["x-cache"] == "MISS"
    assert "fwd=request" in fresh["cache-status"]
    hit = client.chat.completions.with_raw_response.create(**arguments)
    assert hit.headers["x-cache"] == "HIT"
    assert hit.parse().id != first


def test_max_age_zero_misses(client: openai.OpenAI) -> None:
    arguments = chat(max_tokens=2)
    ask(client, arguments)
    assert ask(client, arguments, cache_control="max-age=3600")["x-cache"] == "HIT"
    assert ask(client, arguments, cache_control="min-fresh=9999999")["x-cache"] == "MISS"


def test_a_lifetime_of_its_own(client: openai.OpenAI) -> None:
    arguments = chat(max_tokens=2)
    ask(client, arguments, x_llmproxy_ttl="50")
    status = ask(client, arguments)["cache-status"]
    ttl = int(status.split("ttl=")[1].split(";")[0])
    assert 0 < ttl <= 50


def test_namespaces_do_not_see_each_other(client: openai.OpenAI) -> None:
    arguments = chat(max_tokens=2)
    ask(client, arguments)
    assert ask(client, arguments, x_llmproxy_namespace="other")["x-cache"] == "MISS"
    assert ask(client, arguments, x_llmproxy_namespace="other")["x-cache"] == "HIT"


def test_fields_that_change_nothing_and_fields_that_do(client: openai.OpenAI) -> None:
    arguments = chat(max_tokens=2)
    ask(client, arguments)
    neutral: list[dict[str, Any]] = [{"user": "someone"}, {"metadata": {"a": "b"}}, {"store": False}]
    for more in neutral:
        assert ask(client, {**arguments, **more})["x-cache"] == "HIT", more
    changing: list[dict[str, Any]] = [{"seed": 1}, {"top_p": 0.9}, {"extra_body": {"unheard_of": 1}}]
    for more in changing:
        assert ask(client, {**arguments, **more})["x-cache"] == "MISS", more


def flush(proxy: Proxy, **selector: Any) -> dict[str, Any]:
    answer = httpx.post(f"{proxy.url}/admin/cache/flush", json=selector, timeout=60)
    assert answer.status_code == 200, answer.text
    document = answer.json()
    assert isinstance(document, dict)
    return document


def test_flush_by_every_selector(client: openai.OpenAI, llama_front: Proxy) -> None:
    tag = marker()
    space = f"space-{marker()}".rstrip(".")
    arguments = chat(max_tokens=2)

    def kept() -> str:
        ask(client, arguments, x_llmproxy_tags=f"{tag},second", x_llmproxy_namespace=space)
        again = ask(client, arguments, x_llmproxy_namespace=space)
        assert again["x-cache"] == "HIT"
        return again["cache-status"].split('key="')[1].split('"')[0]

    key = kept()
    for selector in (
        {"tags": [tag]},
        {"namespace": space},
        {"prefix": key[:12], "namespace": space},
        {"model": "smollm2", "endpoint": "chat", "namespace": space},
    ):
        dry = flush(llama_front, **selector, dry_run=True)
        assert dry["flushed"] == 1, selector
        assert dry["bytes"] > 0
        assert ask(client, arguments, x_llmproxy_namespace=space)["x-cache"] == "HIT"
        assert flush(llama_front, **selector)["flushed"] == 1
        assert flush(llama_front, **selector) == {"flushed": 0, "bytes": 0}
        assert kept() == key
    assert flush(llama_front, namespace=space, older_than=3600)["flushed"] == 0
    assert flush(llama_front, namespace="of nobody")["flushed"] == 0


@pytest.mark.parametrize("selector", [{}, {"dry_run": True}, {"unknown": 1}, {"all": True, "model": "m"}, {"tags": 1}])
def test_a_flush_that_says_nothing_clear_is_refused(llama_front: Proxy, selector: dict[str, Any]) -> None:
    answer = httpx.post(f"{llama_front.url}/admin/cache/flush", json=selector, timeout=60)
    assert answer.status_code in {400, 422}
    assert answer.json()["error"]["message"]
