"""The pages against each other and against the program: links, settings, commands, and words that only we use."""

import re
from pathlib import Path
from typing import Any

import pytest

from llmproxy.cli import VERBS, load
from llmproxy.config.load import environment_names
from llmproxy.config.settings import Settings

ROOT = Path(__file__).parents[2]
PAGES = sorted([ROOT / "README.md", *(ROOT / "docs").glob("*.md"), ROOT / "deploy" / "README.md"])
#: pages for people who change the program
OURS = {"decisions.md", "glossary.md", "life.md", "performance.md"}
FOR_USERS = [path for path in PAGES if path.name not in OURS]
#: words of ours that nobody else uses so
PRIVATE = re.compile(r"\b(flights?|excused|faces?|settle[sd]?|tee|marks?|marked|notebook|room)\b", re.IGNORECASE)
_BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_LINK = re.compile(r"\]\(([^)\s]+)\)")


def prose(text: str) -> str:
    """What is left without code."""
    return re.sub(r"`[^`\n]+`", "", _BLOCK.sub("", text))


def anchors(path: Path) -> set[str]:
    """Those that GitHub and others make of headings."""
    headings = re.findall(r"^#+ (.*)$", _BLOCK.sub("", path.read_text()), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def commands(language: str = "sh") -> list[tuple[str, str]]:
    """Every line of shell on the pages, continued lines as one, with its page."""
    found = []
    for path in PAGES:
        for name, text in _BLOCK.findall(path.read_text()):
            if name == language:
                lines = text.replace("\\\n", " ").splitlines()
                found += [(path.name, line.strip()) for line in lines if line.strip()]
    return found


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_links_lead_somewhere(path: Path) -> None:
    for link in _LINK.findall(path.read_text()):
        if "://" in link:
            continue
        file, _, anchor = link.partition("#")
        target = (path.parent / file).resolve() if file else path
        assert target.exists(), link
        if anchor:
            assert anchor in anchors(target), link


def test_every_page_is_in_the_index() -> None:
    linked = {link.partition("#")[0] for link in _LINK.findall((ROOT / "docs" / "README.md").read_text())}
    assert {path.name for path in (ROOT / "docs").glob("*.md")} - {"README.md"} <= linked


@pytest.mark.parametrize("path", FOR_USERS, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_users_read_no_words_of_ours(path: Path) -> None:
    text = re.sub("(single|in) flight", "", prose(path.read_text()), flags=re.IGNORECASE)
    assert PRIVATE.findall(text) == []


@pytest.mark.parametrize("path", FOR_USERS, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_settings_that_are_named_exist(path: Path) -> None:
    known = {name for setting in Settings.model_fields for name in environment_names(setting)} | {"LLMPROXY_CONFIG"}
    assert set(re.findall(r"\bLLMPROXY_[A-Z_]*[A-Z]\b", path.read_text())) <= known


def test_every_command_and_flag_of_the_program_exists() -> None:
    verbs: dict[str, Any] = {verb.name: verb for verb in VERBS}
    seen = 0
    for page, line in commands():
        for call in re.findall(r"(?:^|/bin/|from \. |exec llmproxy |\' )llmproxy ([a-z][^|&;#>]*)", line):
            words = call.split()
            assert words[0] in verbs, (page, line)
            command = load(verbs[words[0]])
            for word in words[1:]:
                command = getattr(command, "commands", {}).get(word, command)
            known = {name for parameter in command.params for name in parameter.opts}
            assert {word for word in words if re.match("--?[a-z]", word)} <= known, (page, line)
            seen += 1
    assert seen > 10
