"""Tables and times for people, in plain text."""

from collections.abc import Iterable, Iterator, Sequence

#: what stands where there is nothing
NOTHING = "–"


def aligned(rows: Iterable[Sequence[str]], left: int = 1) -> Iterator[str]:
    """The rows as lines: the first ``left`` columns to the left, the others, numbers, to the right."""
    table = list(rows)
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    for row in table:
        cells = [
            f"{cell:<{width}}" if number < left else f"{cell:>{width}}"
            for number, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        yield "  ".join(cells).rstrip()


def duration(seconds: float | None) -> str:
    """Seconds in the unit that fits: ``0.84 ms``, ``120 ms``, ``1.20 s``, ``119.9 s``, ``60 min``, ``10.0 h``."""
    if seconds is None:
        return NOTHING
    if seconds < 1:
        return f"{seconds * 1e3:.0f} ms" if seconds >= 0.01 or not seconds else f"{seconds * 1e3:.2f} ms"
    if seconds < 120:
        return f"{seconds:.2f} s" if seconds < 10 else f"{seconds:.1f} s"
    minutes = seconds / 60
    return f"{minutes:.0f} min" if minutes < 120 else f"{minutes / 60:,.1f} h"


def printable(text: str, width: int) -> str:
    """A text from elsewhere in one line of at most ``width`` characters: what would move the cursor is replaced."""
    shown = "".join(each if each.isprintable() else "\ufffd" for each in " ".join(text.split()))
    return shown if len(shown) <= width else f"{shown[: width - 1]}…"
