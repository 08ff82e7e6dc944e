"""One POST, and every way in which it fails."""

import pytest

from llmproxy.upstream.post import PostFailed, post
from tests.jobs.webhooks.receiver import Receiver


async def test_what_is_sent_and_what_comes_back() -> None:
    with Receiver(418, headers={"X-Kettle": "on"}) as receiver:
        posted = await post(f"{receiver.url}?a=%2F&b", [(b"x-one", b"1")], b"{}", 10)
        got = receiver.taken()
    assert posted.status == 418
    assert (b"x-kettle", b"on") in posted.headers
    assert (got.path, got.headers["x-one"], got.body) == ("/told?a=%2F&b", "1", b"{}")
    assert got.headers["host"] == receiver.host


async def test_nobody_answers_in_time() -> None:
    with Receiver(silent=True) as receiver, pytest.raises(PostFailed, match=r"no answer within 0\.2 s"):
        await post(receiver.url, [], b"{}", 0.2)


async def test_it_is_no_tls() -> None:
    with Receiver() as receiver, pytest.raises(PostFailed):
        await post(receiver.url.replace("http:", "https:"), [], b"{}", 10)


@pytest.mark.parametrize("url", ["http://127.0.0.1:99999/", "http://[::1/", "http://", "no url", "gopher://a/"])
async def test_it_is_no_url(url: str) -> None:
    with pytest.raises(PostFailed):
        await post(url, [], b"{}", 10)
