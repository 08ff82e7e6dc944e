"""What commands print: tables for people in plain text, and JSON for programs."""

import json
import os
import sys
from collections.abc import Iterable, Iterator, Sequence

import typer

#: what stands where there is nothing
NOTHING = "–"


def print_json(document: object) -> None:
    typer.echo(json.dumps(document, indent=2, ensure_ascii=False))


def table(head: Sequence[str], rows: Iterable[Sequence[str]], left: int = 1) -> Iterator[str]:
    """The rows as aligned lines below the names of their columns, which a terminal shows dimmed."""
    first, *rest = aligned([head, *rows], left)
    yield typer.style(first, dim=True) if has_colours() else first
    yield from rest


def has_colours() -> bool:
    """Whether what is printed may have colours."""
    return sys.stdout.isatty() and not os.environ.get("NO_COLOR")


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
    line = "".join(each if each.isprintable() else "\ufffd" for each in " ".join(text.split()))
    return line if len(line) <= width else f"{line[: width - 1]}…"
