"""What must not be kept: regular expressions, from each layer of the settings."""

from pathlib import Path
from typing import Any

import pytest

from llmproxy.config.load import ConfigError, load
from llmproxy.config.settings import Settings


@pytest.mark.parametrize(
    ("value", "patterns"),
    [
        ("[0-9]{13,16}", ("[0-9]{13,16}",)),
        (r"\w+@\w+, or so", (r"\w+@\w+, or so",)),
        (r'["\\w+@\\w+", "x{1,3}"]', (r"\w+@\w+", "x{1,3}")),
        ("[1]", ("[1]",)),
        (["a", "b"], ("a", "b")),
    ],
)
def test_one_pattern_or_a_list(value: Any, patterns: tuple[str, ...]) -> None:
    assert Settings.model_validate({"history_redact": value}).history_redact == patterns


def test_a_list_in_the_file(tmp_path: Path) -> None:
    file = tmp_path / "llmproxy.toml"
    file.write_text(r"history_redact = ['\d{16}', 'sk-\w+']")
    assert load({}, {}, file).settings.history_redact == (r"\d{16}", r"sk-\w+")


@pytest.mark.parametrize(
    ("value", "said"),
    [("(", r"'(' is no regular expression"), ("x*", "'x*' would match everywhere"), ('["a", "["]', "'['")],
)
def test_a_bad_pattern_stops_the_start(value: str, said: str) -> None:
    with pytest.raises(ConfigError) as raised:
        load({}, {"LLMPROXY_HISTORY_REDACT": value})
    assert said in str(raised.value)
    assert "\n" not in str(raised.value)
