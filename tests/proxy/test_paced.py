"""A stored stream in its own time: every frame, in order, none before its moment; usage as asked."""

import asyncio
from array import array
from collections.abc import Callable
from time import perf_counter

import pytest
from starlette.types import Message

from llmproxy.config.settings import Replay, Settings
from llmproxy.proxy.deliver import deliver
from llmproxy.proxy.listen import ClientDisconnected
from llmproxy.proxy.request import CacheableRequest, read_body
from llmproxy.proxy.response import Paced, replay
from llmproxy.upstream.headers import Peer
from llmproxy.wire.cache_headers import Directives
from llmproxy.wire.endpoints import BY_PATH
from llmproxy.wire.exchange import Exchange
from llmproxy.wire.json_body import parse
from llmproxy.wire.vocabulary import CacheStatus, Reason
from tests.cache.entries import entry

FRAMES = [
    b'data: {"choices":[{"index":0}]}\n\n',
    b'data: {"choices":[],"usage":{"prompt_tokens":1}}\n\n',
    b"data: [DONE]\n\n",
]


class Leaving:
    """A listener who is gone from the beginning, or never."""

    def __init__(self, *, disconnected: bool) -> None:
        self.disconnected = disconnected

    def watch(self, wake: Callable[[], None]) -> None:
        if self.disconnected:
            wake()


def request(directives: Directives = Directives(paced=True), *, usage: bool = True) -> CacheableRequest:  # noqa: B008  frozen
    endpoint = BY_PATH["/v1/chat/completions"]
    raw = b'{"stream":true,"stream_options":{"include_usage":%s}}' % (b"true" if usage else b"false")
    parsed = read_body(endpoint, parse(raw))
    return CacheableRequest(endpoint, parsed, directives, raw, b"/v1/chat/completions", [], Peer("127.0.0.1"))


def answer(of: CacheableRequest, settings: Settings, millis: tuple[int, int, int] = (0, 1, 2)) -> object:
    ends = array("I")
    for frame in FRAMES:
        ends.append((ends[-1] if ends else 0) + len(frame))
    stored = entry(
        1,
        frames=b"".join(FRAMES),
        ends=ends.tobytes(),
        millis=array("I", millis).tobytes(),
        hidden=array("I", [ends[0], ends[1]]).tobytes(),
    )
    return replay(exchange(), of, stored, settings, 0.0, CacheStatus.HIT, Reason.MEMORY)


def exchange() -> Exchange:
    return Exchange("id", "POST", "/v1/chat/completions", perf_counter(), 0.0)


async def sent(paced: Paced, client: Leaving) -> list[Message]:
    messages: list[Message] = []

    async def send(message: Message) -> None:
        messages.append(message)

    await deliver(paced, exchange(), client, send, ping=0)
    return messages


async def test_every_frame_goes_out_by_itself_and_not_before_its_moment() -> None:
    paced = answer(request(), Settings(), (0, 20, 40))
    assert isinstance(paced, Paced)
    began = asyncio.get_running_loop().time()
    messages = await sent(paced, Leaving(disconnected=False))
    assert asyncio.get_running_loop().time() - began >= 0.04
    assert messages[0]["status"] == 200
    assert [message["body"] for message in messages[1:]] == [*FRAMES, b""]


async def test_usage_is_for_those_who_asked() -> None:
    paced = answer(request(usage=False), Settings())
    assert isinstance(paced, Paced)
    messages = await sent(paced, Leaving(disconnected=False))
    assert [message["body"] for message in messages[1:]] == [FRAMES[0], FRAMES[2], b""]


async def test_it_ends_when_the_client_leaves() -> None:
    paced = answer(request(), Settings(), (0, 3_600_000, 3_600_000))
    assert isinstance(paced, Paced)
    with pytest.raises(ClientDisconnected):
        await sent(paced, Leaving(disconnected=True))


def test_who_decides_is_the_request_then_the_setting() -> None:
    paced = Settings(replay=Replay.PACED)
    assert isinstance(answer(request(Directives()), paced), Paced)
    assert not isinstance(answer(request(Directives()), Settings()), Paced)
    assert not isinstance(answer(request(Directives(paced=False)), paced), Paced)
    assert isinstance(answer(request(), Settings()), Paced)
