"""Who needs the whole of an answer does not wait for one that cannot be held."""

import asyncio

from llmproxy.cache.single_flight import Flights
from llmproxy.proxy.broadcast import BroadcastBuffer
from llmproxy.proxy.listen import wait_result
from llmproxy.proxy.response import Failed, Outcome
from llmproxy.wire.vocabulary import Reason
from tests.proxy.test_life import Patient
from tests.timeouts import WAIT_SECONDS


async def test_an_answer_too_large_to_be_held_is_told_at_once() -> None:
    async def produce(buffer: BroadcastBuffer[Outcome]) -> None:
        buffer.add([b"x" * 11])
        await buffer.wait_capacity()

    flights: Flights[BroadcastBuffer[Outcome]] = Flights(0.0)
    flight = flights.launch(BroadcastBuffer(10), produce)
    async with asyncio.timeout(WAIT_SECONDS):
        outcome = await wait_result(flight, Patient())
    assert isinstance(outcome, Failed)
    assert outcome.reason is Reason.TOO_LARGE
    await flights.close(1.0)
