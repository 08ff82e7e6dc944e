"""HTML as text: what a person reads of it, for work that grows as the page does."""

from typing import Any

import pytest

from llmproxy.wire.markup import text_of

HOSTILE = (
    b"<script",
    b"<title",
    b"<style>",
    b"<",
    b"<!--",
    b"<a ",
    b"</script",
    b"<title>",
    b"><",
    b"<script>x</script",
    b"&#9999999999",
    b"<!-",
    b"\x00<\xff",
)


class Counted(bytes):
    """Bytes that count how many of them were looked at, in whatever was made of them."""

    work: list[int]

    def counting(self, work: list[int]) -> "Counted":
        self.work = work
        return self

    def lower(self) -> "Counted":
        self.work[0] += len(self)
        return Counted(super().lower()).counting(self.work)

    def find(self, sub: Any, start: Any = 0, end: Any = None) -> int:
        found = super().find(sub, start)
        self.work[0] += (len(self) if found < 0 else found) - start + len(sub)
        return found


@pytest.mark.parametrize(
    ("page", "text"),
    [
        (b"<html><head><title>502 Bad\n Gateway</title></head><body>nginx</body></html>", "502 Bad Gateway"),
        (b"<TITLE lang=en>Nope</TITLE>", "Nope"),
        (b"<title></title><h1>Down</h1>", "Down"),
        (b"<title>never closed", "never closed"),
        (b"<p>Oh <b>no</b></p><script>var a = '<b>';</script><style>p{}</style>!", "Oh no !"),
        (b"<!-- <b>hidden</b> --><p>shown</p>", "shown"),
        (b"<p>1 < 2", "1 < 2"),
        (b"<p>a</p><script>b", "a"),
        ("<p>gr\u00fc\u00df <i>dich</i></p>".encode(), "gr\u00fc\u00df dich"),
        (b"<p>\xff</p>", "\ufffd"),
        (b"", ""),
    ],
)
def test_what_a_person_reads(page: bytes, text: str) -> None:
    assert text_of(page) == text


@pytest.mark.parametrize("piece", HOSTILE)
@pytest.mark.parametrize("opening", [b"<p>", b"<", b"<title>", b"<script>"])
def test_the_work_grows_as_the_page_does(piece: bytes, opening: bytes) -> None:
    for times in (100, 1_000, 10_000):
        page = Counted(opening + piece * times).counting([0])
        text_of(page)
        assert page.work[0] <= 8 * len(page) + 100
