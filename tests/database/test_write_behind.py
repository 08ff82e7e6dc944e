"""The write-behind queue itself, with writes that a test lets pass, fail or hang."""

import asyncio
from collections.abc import Callable, Sequence

from llmproxy.database.breaker import CircuitBreaker, ignore
from llmproxy.database.write_behind import UNBOUNDED, Loss, WriteBehind, WriteLimits
from llmproxy.runtime.background import Backoff
from tests.database.faulty import full
from tests.timeouts import WAIT_SECONDS

#: an item is its key and its bytes
Item = tuple[str, int]


class Writes:
    """Takes groups. ``refuse`` names items that no database takes; ``failures`` is how many writes fail."""

    def __init__(self, refuse: Callable[[Item], bool] = lambda item: False, failures: int = 0) -> None:
        self.groups: list[list[str]] = []
        self.attempts: list[int] = []
        self.lost: list[tuple[int, Loss]] = []
        self.failures = failures
        self.failed = asyncio.Event()
        self.reached = asyncio.Event()
        self.go_on = asyncio.Event()
        self.go_on.set()
        self._refuse = refuse

    async def __call__(self, group: Sequence[Item]) -> None:
        self.attempts.append(len(group))
        self.reached.set()
        await self.go_on.wait()
        await asyncio.sleep(0)
        if self.failures:
            self.failures -= 1
            self.failed.set()
            raise full()
        if any(map(self._refuse, group)):
            raise TypeError("a value of the wrong kind")
        self.groups.append([name for name, _ in group])

    def lose(self, count: int, why: Loss) -> None:
        self.lost.append((count, why))


def queue(
    writes: Writes,
    limits: WriteLimits = UNBOUNDED,
    *,
    keyed: bool = False,
    pause: float = 0.001,
    insist: bool = False,
    substitute: Callable[[Item], Item | None] = lambda item: None,
    written: Callable[[], object] = lambda: None,
) -> WriteBehind[Item]:
    breaker = CircuitBreaker("test", ignore, fails="fails (%(fault)s)", backoff=Backoff(pause, pause))
    return WriteBehind(
        "test",
        writes,
        breaker,
        limits,
        size=lambda item: item[1],
        key=(lambda item: item[0]) if keyed else None,
        lost=writes.lose,
        insist=insist,
        substitute=substitute,
        written=lambda group: written(),
    )


async def closed(waiting: WriteBehind[Item]) -> None:
    async with asyncio.timeout(WAIT_SECONDS):
        await waiting.close(WAIT_SECONDS)


async def test_groups_are_bounded_in_items_and_bytes_and_keep_the_order() -> None:
    writes = Writes()
    waiting = queue(writes, WriteLimits(group_items=3, group_bytes=10))
    for item in (("a", 1), ("b", 1), ("c", 1), ("d", 6), ("e", 6), ("f", 50), ("g", 1)):
        assert waiting.put(item)
    assert [name for name, _ in waiting] == list("abcdefg")
    assert (len(waiting), waiting.bytes) == (7, 66)
    waiting.open()
    await closed(waiting)
    assert writes.groups == [["a", "b", "c"], ["d"], ["e"], ["f"], ["g"]]
    assert (len(waiting), waiting.bytes) == (0, 0)


async def test_what_comes_during_a_write_shares_the_next_one() -> None:
    writes = Writes()
    writes.go_on.clear()
    waiting = queue(writes)
    waiting.open()
    waiting.put(("a", 1))
    async with asyncio.timeout(WAIT_SECONDS):
        await writes.reached.wait()
    for name in "bcd":
        waiting.put((name, 1))
    writes.go_on.set()
    await closed(waiting)
    assert writes.groups == [["a"], ["b", "c", "d"]]


async def test_over_its_bounds_it_takes_nothing_and_counts() -> None:
    writes = Writes()
    waiting = queue(writes, WriteLimits(items=2, bytes=100))
    assert [waiting.put((name, 1)) for name in "abc"] == [True, True, False]
    assert writes.lost == [(1, Loss.FULL)]
    large = queue(writes, WriteLimits(items=10, bytes=100))
    assert [large.put(item) for item in (("a", 60), ("b", 60), ("c", 40))] == [True, False, True]


async def test_of_many_those_that_find_no_room_are_not_even_made() -> None:
    writes, made = Writes(), []

    def make(name: str) -> Item:
        made.append(name)
        return name, 1

    waiting = queue(writes, WriteLimits(items=2))
    waiting.put_many(5, map(make, "abcde"))
    waiting.put_many(1, map(make, "f"))
    assert made == ["a", "b"]
    assert writes.lost == [(3, Loss.FULL), (1, Loss.FULL)]


async def test_an_item_takes_the_place_of_one_with_its_key() -> None:
    writes = Writes()
    waiting = queue(writes, WriteLimits(bytes=10), keyed=True)
    waiting.put(("a", 5))
    waiting.put(("b", 1))
    waiting.put(("a", 7))
    assert (list(waiting), waiting.bytes) == ([("b", 1), ("a", 7)], 8)
    assert waiting.find("a") == ("a", 7)
    assert not waiting.put(("b", 11)), "what it replaced is gone all the same"
    assert waiting.find("b") is None
    assert waiting.replace(("a", 20)), "one that waits already is not lost for want of room"
    assert not waiting.replace(("c", 1))
    assert waiting.discard("a") == ("a", 20)
    assert waiting.discard("a") is None
    assert waiting.bytes == 0


async def test_what_is_replaced_during_its_write_is_written_again() -> None:
    writes = Writes()
    writes.go_on.clear()
    waiting = queue(writes, keyed=True)
    waiting.open()
    waiting.put(("a", 1))
    async with asyncio.timeout(WAIT_SECONDS):
        await writes.reached.wait()
        waiting.put(("a", 2))
        assert waiting.find("a") == ("a", 2)
        writes.go_on.set()
        await waiting.settle()
    assert writes.groups == [["a"], ["a"]]
    await closed(waiting)


async def test_smaller_and_smaller_groups_find_the_item_that_is_refused() -> None:
    writes = Writes(refuse=lambda item: item[0] == "13")
    waiting = queue(writes, WriteLimits(group_items=20))
    for number in range(20):
        waiting.put((str(number), 1))
    waiting.open()
    await closed(waiting)
    assert [name for group in writes.groups for name in group] == [str(n) for n in range(20) if n != 13]
    assert writes.lost == [(1, Loss.REFUSED)]
    assert writes.attempts[:3] == [20, 10, 10]


async def test_one_that_is_refused_can_be_replaced() -> None:
    writes = Writes(refuse=lambda item: item[0] == "bad")
    waiting = queue(writes, substitute=lambda item: ("good", 1))
    waiting.put(("bad", 5))
    waiting.open()
    await closed(waiting)
    assert writes.groups == [["good"]]
    assert writes.lost == []


async def test_a_fault_is_waited_out() -> None:
    writes = Writes(failures=3)
    waiting = queue(writes)
    waiting.open()
    waiting.put(("a", 1))
    async with asyncio.timeout(WAIT_SECONDS):
        assert await waiting.settle()
    assert (writes.groups, writes.attempts) == ([["a"]], [1, 1, 1, 1])
    await closed(waiting)


async def test_at_the_end_a_fault_is_tried_once_more() -> None:
    writes = Writes(failures=1_000)
    waiting = queue(writes, pause=3600.0)
    waiting.open()
    waiting.put(("a", 1))
    async with asyncio.timeout(WAIT_SECONDS):
        await writes.failed.wait()
    await closed(waiting)
    assert writes.attempts == [1, 1]
    assert writes.lost == [(1, Loss.UNWRITTEN)]


async def test_who_insists_waits_faults_out_at_the_end_too() -> None:
    writes = Writes(failures=5)
    waiting = queue(writes, insist=True)
    waiting.put(("a", 1))
    waiting.open()
    await closed(waiting)
    assert writes.groups == [["a"]]
    await closed(waiting)


async def test_the_end_has_a_limit() -> None:
    writes = Writes()
    writes.go_on.clear()
    waiting = queue(writes)
    waiting.open()
    waiting.put(("a", 1))
    waiting.put(("b", 1))
    async with asyncio.timeout(WAIT_SECONDS):
        await writes.reached.wait()
        asked = asyncio.create_task(waiting.settle())
        await waiting.close(0.001)
        assert await asked
    assert writes.lost == [(2, Loss.UNWRITTEN)]
    assert not waiting.put(("c", 1))
    assert writes.lost[-1] == (1, Loss.FULL)


async def test_settling_waits_for_what_is_there_and_not_for_what_comes_later() -> None:
    writes = Writes()
    waiting = queue(writes, WriteLimits(group_items=1), written=lambda: waiting.put(("more", 1)))
    assert await waiting.settle(0.001)
    waiting.put(("a", 1))
    assert not await waiting.settle(0.001), "it is not open"
    waiting.open()
    async with asyncio.timeout(WAIT_SECONDS):
        assert await waiting.settle()
    assert writes.groups[0] == ["a"]
    await waiting.close(0.001)


async def test_who_gave_up_settling_is_forgotten() -> None:
    writes = Writes()
    writes.go_on.clear()
    waiting = queue(writes)
    waiting.open()
    waiting.put(("a", 1))
    asked = asyncio.create_task(waiting.settle())
    async with asyncio.timeout(WAIT_SECONDS):
        await writes.reached.wait()
    asked.cancel()
    await asyncio.wait({asked})
    writes.go_on.set()
    await closed(waiting)
    assert writes.groups == [["a"]]


async def test_while_it_is_paused_nothing_is_on_its_way() -> None:
    writes = Writes()
    waiting = queue(writes, keyed=True)
    waiting.open()
    async with asyncio.timeout(WAIT_SECONDS), waiting.paused():
        waiting.put(("a", 1))
        waiting.put(("b", 1))
        for _ in range(10):
            await asyncio.sleep(0)
        assert waiting.discard("a") == ("a", 1)
    await closed(waiting)
    assert writes.groups == [["b"]]


async def test_the_rest_between_groups_is_the_users() -> None:
    writes, paces = Writes(), []

    def pace(count: int, seconds: float) -> float:
        paces.append(count)
        assert seconds >= 0
        return 0.0

    breaker = CircuitBreaker("test", ignore, fails="")
    waiting: WriteBehind[Item] = WriteBehind("test", writes, breaker, WriteLimits(group_items=2), pace=pace)
    waiting.put_many(3, [("a", 1), ("b", 1), ("c", 1)])
    waiting.open()
    await closed(waiting)
    assert paces == [2, 1]
