"""Tables for people, in plain text."""

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


def printable(text: str, width: int) -> str:
    """A text from elsewhere in one line of at most ``width`` characters: what would move the cursor is replaced."""
    shown = "".join(each if each.isprintable() else "\ufffd" for each in " ".join(text.split()))
    return shown if len(shown) <= width else f"{shown[: width - 1]}…"
