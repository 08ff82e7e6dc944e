"""Who leads, who follows, and when work ends that nobody listens to."""

import asyncio

from llmproxy.cache.single_flight import Flights


class Work:
    """Work that waits to be told to end, and says how it ended."""

    def __init__(self) -> None:
        self.go = asyncio.Event()
        self.ended: asyncio.Future[str] = asyncio.get_running_loop().create_future()


async def run(work: Work) -> None:
    try:
        await work.go.wait()
    except asyncio.CancelledError:
        work.ended.set_result("cancelled")
        raise
    work.ended.set_result("finished")


async def test_a_flight_is_found_by_its_key_until_it_lands() -> None:
    flights: Flights[Work] = Flights(grace=0)
    flight = flights.launch(Work(), run, b"k")
    assert flights.find(b"k") is flight
    assert flights.find(b"other") is None
    flight.work.go.set()
    assert await flight.work.ended == "finished"
    assert flight.task is not None
    await flight.task
    await asyncio.sleep(0)
    assert flights.find(b"k") is None
    assert len(flights) == 0


async def test_without_a_key_nobody_joins() -> None:
    flights: Flights[Work] = Flights(grace=0)
    flight = flights.launch(Work(), run)
    assert flights.find(b"") is None
    flight.leave()
    assert await flight.work.ended == "cancelled"


async def test_it_survives_its_leader_while_anybody_listens() -> None:
    flights: Flights[Work] = Flights(grace=0)
    flight = flights.launch(Work(), run, b"k")
    flight.listen()
    flight.leave()
    for _ in range(5):
        await asyncio.sleep(0)
    assert not flight.work.ended.done()
    flight.leave()
    assert await flight.work.ended == "cancelled"
    assert flight.abandoned


async def test_a_retry_within_the_grace_joins() -> None:
    flights: Flights[Work] = Flights(grace=3600)
    flight = flights.launch(Work(), run, b"k")
    flight.leave()
    found = flights.find(b"k")
    assert found is flight
    found.listen()
    flight.work.go.set()
    assert await flight.work.ended == "finished"


async def test_without_a_grace_work_finishes_by_itself() -> None:
    flights: Flights[Work] = Flights(grace=None)
    flight = flights.launch(Work(), run, b"k")
    flight.leave()
    flight.work.go.set()
    assert await flight.work.ended == "finished"


async def test_an_abandoned_flight_is_not_joined_and_does_not_take_its_successor_along() -> None:
    flights: Flights[Work] = Flights(grace=0)
    first = flights.launch(Work(), run, b"k")
    first.leave()
    await first.work.ended
    assert flights.find(b"k") is None
    second = flights.launch(Work(), run, b"k")
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert flights.find(b"k") is second
    await flights.close(0)


async def test_release_gives_the_key_up_before_the_end() -> None:
    flights: Flights[Work] = Flights(grace=0)
    flight = flights.launch(Work(), run, b"k")
    flights.release(b"k", Work())
    assert flights.find(b"k") is flight
    flights.release(b"k", flight.work)
    assert flights.find(b"k") is None
    await flights.close(0)


async def test_close_ends_what_does_not_land() -> None:
    flights: Flights[Work] = Flights(grace=3600)
    landing, staying = flights.launch(Work(), run, b"a"), flights.launch(Work(), run, b"b")
    landing.work.go.set()
    await flights.close(0.01)
    assert await landing.work.ended == "finished"
    assert await staying.work.ended == "cancelled"


async def test_after_a_parting_nobody_joins_and_the_work_goes_on() -> None:
    flights: Flights[Work] = Flights(grace=0)
    flight = flights.launch(Work(), run, b"k")
    flights.part()
    assert flights.find(b"k") is None
    flight.work.go.set()
    assert await flight.work.ended == "finished"
