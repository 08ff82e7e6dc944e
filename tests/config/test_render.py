"""The pages made from the program are what the program says today."""

import os
import subprocess
import sys
from pathlib import Path

from docs.render.settings import page as settings_page
from llmproxy.config.load import display_value, environment_names
from llmproxy.config.settings import Settings

ROOT = Path(__file__).parents[2]


def test_the_pages_are_up_to_date() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "docs.render", "--check"],
        check=False,
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=100,
    )
    assert done.stderr == ""
    assert done.returncode == 0


def test_every_setting_has_a_row_with_its_words() -> None:
    page = settings_page()
    for name, field in Settings.model_fields.items():
        assert field.description, name
        assert any(line.startswith(f"| `{name}`") and field.description in line for line in page.splitlines())


def test_bare_names_are_shown_where_there_are_any() -> None:
    assert environment_names("cache_max_size") == ("LLMPROXY_CACHE_MAX_SIZE", "CACHE_MAX_SIZE")
    assert environment_names("port") == ("LLMPROXY_PORT",)
    assert "`CACHE_MAX_SIZE`" in settings_page()


def test_values_are_shown_without_secrets() -> None:
    assert display_value("admin_token", "x") == "(hidden)"
    assert display_value("admin_token", None) == "None"
    assert display_value("upstream", ("http://a:b@c/",)) == "['http://(hidden)@c/']"
    assert display_value("history", True) == "true"
