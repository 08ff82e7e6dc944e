"""What waits to be written."""

from llmproxy.cache.sql import Pending
from llmproxy.cache.tier import Selector
from tests.cache.entries import entry, key


def test_a_batch_stays_visible_until_it_is_done() -> None:
    pending = Pending(10, 10_000)
    for number in range(5):
        assert pending.offer(entry(number))
    batch = pending.batch(3, 10_000)
    assert [each.key for each in batch] == [key(0), key(1), key(2)]
    assert len(pending) == 5
    assert pending.find(key(0)) is not None
    pending.done(batch)
    assert len(pending) == 2
    assert pending.find(key(0)) is None


def test_what_replaced_a_written_entry_waits_on() -> None:
    pending = Pending(10, 10_000)
    pending.offer(entry(1))
    batch = pending.batch(10, 10_000)
    newer = entry(1, document=b"newer")
    pending.offer(newer)
    pending.done(batch)
    assert pending.find(key(1)) is newer


def test_one_entry_larger_than_a_batch_goes_alone() -> None:
    pending = Pending(10, 10_000)
    pending.offer(entry(1, document=b"x" * 500))
    pending.offer(entry(2, document=b"x" * 500))
    assert len(pending.batch(10, 100)) == 1
    assert len(pending.batch(10, 999)) == 1
    assert len(pending.batch(10, 1000)) == 2


def test_room_comes_back() -> None:
    pending = Pending(2, 1000)
    assert pending.offer(entry(1, document=b"x" * 900))
    assert not pending.offer(entry(2, document=b"x" * 101))
    assert pending.offer(entry(1, document=b"x" * 100))
    assert pending.offer(entry(2, document=b"x" * 900))
    assert not pending.offer(entry(3, document=b""))
    assert [gone.key for gone in pending.forget(Selector(key=key(2)))] == [key(2)]
    assert pending.offer(entry(3, document=b"x" * 900))
