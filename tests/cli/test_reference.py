"""The rendered page of the command line covers every command and every flag."""

from typing import Any

from docs.render import cli as reference
from llmproxy.cli import VERBS, load


def commands(name: str, command: Any) -> list[tuple[str, Any]]:
    below = getattr(command, "commands", {})
    return [(name, command), *(row for sub, each in below.items() for row in commands(f"{name} {sub}", each))]


def test_every_command_has_a_section_and_every_flag_a_row() -> None:
    page = reference.page()
    found = [row for verb in VERBS for row in commands(verb.name, load(verb))]
    assert ("cache flush") in {name for name, _ in found}
    for name, command in found:
        section = page.split(f"## llmproxy {name}\n")[1].split("\n## ")[0]
        assert command.help.splitlines()[0] in section
        for parameter in command.params:
            assert parameter.help, (name, parameter.name)
            if parameter.param_type_name == "option":
                assert f"| `{', '.join(parameter.opts)}" in section
                assert parameter.is_flag or parameter.metavar, (name, parameter.name)
