"""The page ``docs/cli.md``, made from the command line itself."""

import inspect
from collections.abc import Iterator
from typing import Any

from llmproxy.cli import VERBS, load

_HEAD = """\
# Command line: every command and flag of llmproxy

<!-- Rendered from llmproxy/cli by `make docs`. -->

Exit codes: 0; 1 for a failure; 2 for wrong usage or settings. Messages go to stderr. `llmproxy --version` prints the
version, `--help` after any command explains it.
"""


def page() -> str:
    """The whole page, Markdown."""
    return _HEAD + "".join(f"\n{section}" for verb in VERBS for section in _sections(verb.name, load(verb)))


def _sections(name: str, command: Any) -> Iterator[str]:
    """A section for the command and one for each below it."""
    lines = [f"## llmproxy {name}", "", inspect.cleandoc(command.help or "")]
    rows = [_row(parameter) for parameter in command.params]
    if rows:
        lines += ["", "| | |", "|---|---|", *rows]
    yield "\n".join(lines) + "\n"
    for below, each in getattr(command, "commands", {}).items():
        yield from _sections(f"{name} {below}", each)


def _row(parameter: Any) -> str:
    if parameter.param_type_name == "argument":
        return f"| `{parameter.metavar}` | {parameter.help} |"
    flags = ", ".join(parameter.opts) + (f" {parameter.metavar}" if parameter.metavar else "")
    return f"| `{flags}` | {parameter.help} |"
