"""The official client in front of the program in front of llama.cpp."""

from collections.abc import AsyncIterator, Iterator

import openai
import pytest

from tests.server import Proxy


@pytest.fixture
def client(llama_front: Proxy) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{llama_front.url}/v1", api_key="none", max_retries=0) as made:
        yield made


@pytest.fixture
async def async_client(llama_front: Proxy) -> AsyncIterator[openai.AsyncOpenAI]:
    async with openai.AsyncOpenAI(base_url=f"{llama_front.url}/v1", api_key="none", max_retries=0) as made:
        yield made
