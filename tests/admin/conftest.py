"""A program with some history, and a client of its operator's API."""

from collections.abc import AsyncIterator

import httpx
import pytest

from tests.conftest import MakeProxy
from tests.scripted_upstream import ScriptedUpstream
from tests.server import Proxy


@pytest.fixture
def server(upstream: ScriptedUpstream, proxy: MakeProxy) -> Proxy:
    return proxy(upstream.url, history_redact=r"[\w.]+@[\w.]+", history_body_bytes=2_000)


@pytest.fixture
async def client(server: Proxy) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(base_url=server.url, trust_env=False, timeout=60) as client:
        yield client
