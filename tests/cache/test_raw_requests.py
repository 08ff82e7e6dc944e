"""The table of raw requests holds no more than it may."""

from llmproxy.cache.raw_requests import HotAnswer, RawRequestIndex
from llmproxy.wire.exchange import Exchange
from tests.cache.entries import entry


def answer(size: int) -> HotAnswer:
    template = Exchange("", "POST", "/", 0.0, 0.0)
    return HotAnswer(entry(1, document=b"x" * size), b"", lambda now: b"", "", 0, template)


def raw(number: int) -> bytes:
    return b"POST / HTTP/1.1\r\n\r\n%d" % number


def test_it_is_bounded_in_entries_and_in_bytes() -> None:
    for size, most in ((10, 3), (600, 1)):
        table = RawRequestIndex(3, 1000, lambda key: None, lambda: 0)
        for number in (*range(20), 19, 19):
            table.remember(raw(number), answer(size))
        assert len(table) == most
        table.remember(raw(99), answer(2000))
        assert len(table) == most, "one that is too large is not kept and takes nobody's place"


def test_heads_leave_with_their_answers() -> None:
    table = RawRequestIndex(1, 1000, lambda key: None, lambda: 0)
    table.remember(raw(1), answer(10))
    table.remember(raw(2).replace(b"POST / ", b"POST /other "), answer(10))
    assert table.length(b"POST / HTTP/1.1\r\n\r\n") == 0
