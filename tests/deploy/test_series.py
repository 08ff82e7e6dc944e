"""How many series Prometheus has to keep, whatever callers make up."""

import asyncio
from pathlib import Path

import aiohttp
import pytest

from tests.scripted_upstream import ScriptedUpstream
from tests.server import Proxy
from tests.timeouts import WAIT_SECONDS

NAMES, AT_ONCE = 10_000, 16
#: no more names of models than these are told apart, by metrics of ours and of OpenTelemetry's conventions
MOST, MOST_OF_CONVENTIONS = 100, 20


async def ask(http: aiohttp.ClientSession, numbers: "asyncio.Queue[int]") -> None:
    """Asks for one invented model after the other; the model server answers to all of them."""
    while not numbers.empty():
        body = {"model": f"junk-{numbers.get_nowait()}", "messages": [{"role": "user", "content": "x"}]}
        async with http.post("/v1/chat/completions", json=body) as answer:
            assert answer.status == 200
            await answer.read()


async def scraped(http: aiohttp.ClientSession) -> dict[str, float]:
    """Every series and its value."""
    async with http.get("/metrics") as answer:
        lines = (await answer.text()).splitlines()
    series = (line.rpartition(" ") for line in lines if not line.startswith("#"))
    return {name: float(value) for name, _, value in series}


def of(name: str, found: dict[str, float]) -> list[float]:
    """The values of a metric's series at the endpoint for chats."""
    return [value for series, value in found.items() if series.startswith(f"{name}{{") and '"chat"' in series]


@pytest.mark.timeout(300)
async def test_ten_thousand_invented_models_are_a_hundred_series(upstream: ScriptedUpstream, tmp_path: Path) -> None:
    numbers: asyncio.Queue[int] = asyncio.Queue()
    for number in range(NAMES):
        numbers.put_nowait(number)
    with Proxy(upstream.url, database=tmp_path / "llmproxy.db", history=False, log_level="error") as proxy:
        async with aiohttp.ClientSession(proxy.url) as http:
            await asyncio.gather(*(ask(http, numbers) for _ in range(AT_ONCE)))
            # the last of them are counted a moment later
            async with asyncio.timeout(WAIT_SECONDS):
                while sum(of("llmproxy_requests_total", found := await scraped(http))) < NAMES:
                    pass
    assert len(of("llmproxy_requests_total", found)) == MOST + 1
    assert len(of("gen_ai_client_operation_duration_seconds_count", found)) == MOST_OF_CONVENTIONS + 1
    assert len(found) < 3_000
