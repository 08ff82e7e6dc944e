"""A client that leaves real llama.cpp: its slot becomes idle."""

import asyncio

import httpx
import pytest

from tests.conftest import MakeProxy
from tests.e2e.asking import body, chat
from tests.llama import Llama
from tests.timeouts import WAIT_SECONDS

#: llama.cpp notices that a plain caller left only when nobody asked it anything for a whole second
BETWEEN_LOOKS = 1.2


async def busy_slots(llama: Llama) -> int:
    async with httpx.AsyncClient(timeout=60, trust_env=False) as http:
        return sum(slot["is_processing"] for slot in (await http.get(f"{llama.url}/slots")).json())


@pytest.mark.parametrize("stream", [False, True], ids=["plain", "stream"])
async def test_the_slot_becomes_idle(llama: Llama, proxy: MakeProxy, stream: bool) -> None:
    own = proxy(llama.url, disconnect_grace=0.1)
    arguments = body(chat("Write a very long story.", max_tokens=900, stream=stream))
    async with httpx.AsyncClient(base_url=own.url, timeout=60, trust_env=False) as http:
        asking = asyncio.create_task(http.post("/v1/chat/completions", json=arguments))
        async with asyncio.timeout(WAIT_SECONDS):
            while not await busy_slots(llama):
                assert not asking.done()
        asking.cancel()
        await asyncio.wait([asking])
        looks = 0
        while await busy_slots(llama):
            looks += 1
            assert looks < 4, "900 tokens take far longer than that: the call was not ended"
            await asyncio.sleep(BETWEEN_LOOKS)


async def test_the_work_goes_on_where_that_is_wanted(llama: Llama, proxy: MakeProxy) -> None:
    own = proxy(llama.url, disconnect_grace=0, on_disconnect="finish")
    arguments = body(chat("Write a story.", max_tokens=100))
    async with httpx.AsyncClient(base_url=own.url, timeout=60, trust_env=False) as http:
        asking = asyncio.create_task(http.post("/v1/chat/completions", json=arguments))
        async with asyncio.timeout(WAIT_SECONDS):
            while not await busy_slots(llama):
                assert not asking.done()
        asking.cancel()
        await asyncio.wait([asking])
        answer = await http.post("/v1/chat/completions", json=arguments)
    assert answer.headers["x-cache"] in {"JOINED", "HIT"}
