"""The page ``docs/settings.md``, made from the settings themselves."""

from collections.abc import Iterator

from pydantic.fields import FieldInfo

from llmproxy.config.load import allowed, display_value, environment_names, is_secret
from llmproxy.config.settings import Settings

#: a section begins at this setting
_SECTIONS = {
    "host": "Listening",
    "upstream": "Upstream",
    "cache_policy": "Cache",
    "database_path": "Database and history",
    "jobs": "Background jobs",
    "log_level": "Logs and metrics",
}

_HEAD = """\
# Settings: environment variables, llmproxy.toml, flags

<!-- Rendered from llmproxy/config/settings.py by `make docs`. -->

Each value comes from the last of these that gives it: the default, `llmproxy.toml` in the working directory (or the
file that `LLMPROXY_CONFIG` names), the environment, a flag of `llmproxy serve`. In the file a setting has its name; in
the environment the name in capitals with the prefix `LLMPROXY_`, and a few also answer to the bare name given in
their row. An empty variable counts as absent. Lists are written with commas in the environment.

A name that does not exist and a value that is not allowed stop the start with one line. `llmproxy config` prints the
effective settings with the source of each.
"""


def page() -> str:
    """The whole page, Markdown."""
    return _HEAD + "\n".join(_rows()) + "\n"


def _rows() -> Iterator[str]:
    sections = dict(_SECTIONS)
    for name, field in Settings.model_fields.items():
        if name in sections:
            yield f"\n## {sections.pop(name)}\n\n| setting | default | takes | |\n|---|---|---|---|"
        yield f"| {_names(name)} | {_default(name, field)} | {_takes(name)} | {field.description} |"
    if sections:
        raise LookupError(f"sections begin at settings that do not exist: {', '.join(sections)}")


def _names(name: str) -> str:
    return "<br>".join(f"`{each}`" for each in (name, *environment_names(name)[1:]))


def _takes(name: str) -> str:
    return allowed(name) + (" (secret)" if is_secret(name) else "")


def _default(name: str, field: FieldInfo) -> str:
    if field.default_factory is not None:
        # it depends on the machine
        return "see right"
    value = field.default
    if value in (None, (), ""):
        return "–"
    text = display_value(name, value).strip("'")
    return f"`{text}`" + _as_size(value if name.endswith("_bytes") else 0)


def _as_size(size: int) -> str:
    for unit, factor in (("GiB", 2**30), ("MiB", 2**20), ("KiB", 2**10)):
        if size >= factor and size % factor == 0:
            return f" ({size // factor} {unit})"
    return ""
