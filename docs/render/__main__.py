"""Writes the pages that are made from the program itself; with ``--check`` only says which are out of date."""

import sys
from collections.abc import Callable
from pathlib import Path

from docs.render import cli, metrics, settings

PAGES: dict[str, Callable[[], str]] = {
    "settings.md": settings.page,
    "cli.md": cli.page,
    "metrics.md": metrics.page,
}


def main(arguments: list[str]) -> None:
    """Ends with exit code 1 where ``--check`` is given and a page differs from what it would be."""
    folder = Path(__file__).parents[1]
    stale = [name for name, page in PAGES.items() if _text(folder / name) != page()]
    if stale and "--check" in arguments:
        sys.exit(f"out of date: {', '.join(stale)}; run `make docs`")
    for name in stale:
        (folder / name).write_text(PAGES[name](), encoding="utf-8")


def _text(path: Path) -> str:
    return path.read_text(encoding="utf-8") if path.exists() else ""


if __name__ == "__main__":
    main(sys.argv[1:])
