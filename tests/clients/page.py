"""``docs/clients.md`` as data: its sections, the code in them, and the versions in its table."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "docs" / "clients.md").read_text()
#: how a command of the page reaches the proxy
ADDRESS = "127.0.0.1:4141"
_BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def blocks(text: str) -> list[tuple[str, str]]:
    """The language and the text of each block of code."""
    return [(found[1], found[2]) for found in _BLOCK.finditer(text)]


def section(heading: str) -> str:
    """The text below a heading of the second level."""
    _, _, text = TEXT.partition(f"\n## {heading}\n")
    assert text, heading
    return text.partition("\n## ")[0]


def code(heading: str, language: str) -> str:
    """The first block in this language below the heading."""
    return next(text for name, text in blocks(section(heading)) if name == language)


def exports() -> dict[str, str]:
    """The variables that the page has set before all else."""
    block = next(text for name, text in blocks(TEXT) if name == "sh")
    return dict(re.findall(r"(\w+)=(\S+)", block))


def row(heading: str) -> str:
    """The line of the table that leads to a section."""
    anchor = heading.lower().replace(" ", "-").replace("/", "")
    return next(line for line in TEXT.splitlines() if f"](#{anchor})" in line)


def version(heading: str, package: str = "") -> str:
    """The version with which a client was run. ``package`` is needed where the row names several."""
    run_with = row(heading).split("|")[-2]
    found = re.search(rf"{re.escape(package)} ?(\d+(?:\.\d+)+)", run_with)
    assert found is not None, run_with
    return found[1]
