"""The effective settings: defaults < ``llmproxy.toml`` < environment < flags, and where each value came from.

Also what a setting is called, what it takes and how its value is printed: for messages and for the documentation.
"""

import os
import re
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from enum import StrEnum
from pathlib import Path
from types import NoneType
from typing import Any, get_args, get_origin

from annotated_types import Ge, Gt, Le
from pydantic import AliasChoices, SecretStr, ValidationError
from pydantic.fields import FieldInfo

from llmproxy.config.settings import Settings
from llmproxy.config.values import REGULAR

FILE = Path("llmproxy.toml")
#: names the file; the only variable with the prefix that is not a setting
FILE_VARIABLE = "LLMPROXY_CONFIG"

#: two ways to say one thing: where a layer gives one, the other from the layers below it no longer counts
_RIVALS = {"database_path": "database_url", "database_url": "database_path"}


class ConfigError(Exception):
    """The settings cannot be used. The message is one line: the setting, its value, what is allowed."""


@dataclass(frozen=True)
class Loaded:
    """``sources`` tells of every setting: ``default``, the file's name, ``environment NAME`` or ``flag``."""

    settings: Settings
    sources: Mapping[str, str]


@dataclass(frozen=True)
class _Value:
    raw: object
    source: str


_Layer = dict[str, _Value]


def load(flags: Mapping[str, object], env: Mapping[str, str] | None = None, file: Path | None = None) -> Loaded:
    """The settings from every layer.

    ``flags`` maps names of settings to values, None if a flag was not given. ``env`` is the process's environment
    unless given; ``file`` is the one ``LLMPROXY_CONFIG`` names, else ``llmproxy.toml`` where it exists. Raises
    ``ConfigError`` for anything that is unknown or not allowed.
    """
    env = os.environ if env is None else env
    values: _Layer = {}
    for layer in (_from_file(env, file), _from_environment(env), _from_flags(flags)):
        for name in layer:
            values.pop(_RIVALS.get(name, name), None)
        values |= layer
    settings = _build(values)
    sources = {name: values[name].source if name in values else "default" for name in Settings.model_fields}
    return Loaded(settings, sources)


def _from_file(env: Mapping[str, str], file: Path | None) -> _Layer:
    named = file or (Path(env[FILE_VARIABLE]) if env.get(FILE_VARIABLE) else None)
    if named is None and not FILE.exists():
        return {}
    path = named or FILE
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"cannot read the settings file {path}: {error.strerror}") from error
    except ValueError as error:
        raise ConfigError(f"{path} is not valid TOML: {error}") from error
    for name in table:
        if name not in Settings.model_fields:
            raise ConfigError(f"{path}: there is no setting {name!r}{_guess(name, list(Settings.model_fields))}")
    return {name: _Value(raw, str(path)) for name, raw in table.items()}


def _from_environment(env: Mapping[str, str]) -> _Layer:
    """An empty variable counts as absent, as container tools pass on what was never set."""
    variables = {variable: name for name in Settings.model_fields for variable in environment_names(name)}
    for variable in env:
        if variable.startswith(PREFIX) and variable not in variables and variable != FILE_VARIABLE:
            prefixed = [each for each in variables if each.startswith(PREFIX)]
            raise ConfigError(f"environment: there is no setting {variable}{_guess(variable, prefixed)}")
    layer: _Layer = {}
    for variable, name in variables.items():
        if env.get(variable) and name not in layer:
            layer[name] = _Value(env[variable], f"environment {variable}")
    return layer


def _from_flags(flags: Mapping[str, object]) -> _Layer:
    return {name: _Value(raw, "flag") for name, raw in flags.items() if raw is not None}


def _guess(name: str, names: list[str]) -> str:
    close = get_close_matches(name, names, n=1)
    return f"; did you mean {close[0]}?" if close else "; `llmproxy config` lists them all"


def _build(values: _Layer) -> Settings:
    given: dict[str, Any] = {name: value.raw for name, value in values.items()}
    try:
        return Settings(**given)
    except ValidationError as error:
        line = next(_lines(error, values))
    # outside the handler: pydantic's page, which shows values, is not to follow as the cause
    raise ConfigError(without_credentials(line))


def _lines(error: ValidationError, values: _Layer) -> Iterator[str]:
    for problem in error.errors(include_url=False, include_input=False):
        # a check of the author's own says what is allowed; pydantic's are said in the setting's terms
        own = " ".join(str(problem["ctx"]["error"]).split()) if problem["type"] == "value_error" else ""
        if not problem["loc"]:
            yield own
            continue
        name = str(problem["loc"][0]).lower().removeprefix(PREFIX.lower())
        value = values[name]
        yield f"{name} = {display_value(name, value.raw)} ({value.source}): {own or 'allowed is ' + allowed(name)}"


PREFIX = "LLMPROXY_"
HIDDEN = "(hidden)"

_CREDENTIALS = re.compile(r"(?<=//)[^/@\s]*@")


def environment_names(name: str) -> tuple[str, ...]:
    """The variables that set a setting, the one that wins first."""
    alias = Settings.model_fields[name].validation_alias
    choices = alias.choices if isinstance(alias, AliasChoices) else []
    bare = [choice for choice in choices if isinstance(choice, str) and choice == name.upper()]
    return (PREFIX + name.upper(), *bare)


def allowed(name: str) -> str:
    """What a setting takes, as the end of a sentence: ``an integer from 0 to 65535``."""
    field = Settings.model_fields[name]
    kind = _kind(field.annotation)
    if REGULAR in field.metadata:
        return "a regular expression, or a list of them"
    if kind is bool:
        return "true or false"
    if kind is int:
        return "an integer" + _bounds(field)
    if kind is float:
        return "a number" + _bounds(field)
    if kind is Path:
        return "a path"
    if isinstance(kind, type) and issubclass(kind, StrEnum):
        return "one of " + ", ".join(kind)
    if kind in (str, SecretStr):
        return "text"
    if get_origin(kind) is dict:
        return "a table of texts, or a JSON object"
    return "a list, or words separated by commas"


def is_secret(name: str) -> bool:
    """Whether a setting's value must never be display_value."""
    annotation = Settings.model_fields[name].annotation
    return SecretStr in (annotation, *get_args(annotation))


def display_value(name: str, value: object) -> str:
    """A setting's value for people: secrets and passwords inside URLs hidden."""
    if is_secret(name) and value not in (None, ()):
        return HIDDEN
    if isinstance(value, Path):
        value = str(value)
    elif isinstance(value, tuple):
        value = list(value)
    elif isinstance(value, StrEnum):
        value = value.value
    elif isinstance(value, dict):
        # the texts are long; which there are is what is asked
        value = sorted(value)
    return without_credentials(str(value).lower() if isinstance(value, bool) else repr(value))


def without_credentials(text: str) -> str:
    """``text`` with user and password of the URLs in it hidden."""
    return _CREDENTIALS.sub(HIDDEN + "@", text)


def _kind(annotation: Any) -> Any:
    """The annotation without its ``None``."""
    rest = [part for part in get_args(annotation) if part is not NoneType]
    return rest[0] if NoneType in get_args(annotation) and len(rest) == 1 else annotation


def _bounds(field: FieldInfo) -> str:
    low: Any = None
    high: Any = None
    for bound in field.metadata:
        if isinstance(bound, Gt):
            return f" above {bound.gt}"
        if isinstance(bound, Ge):
            low = bound.ge
        if isinstance(bound, Le):
            high = bound.le
    if high is not None:
        return f" from {low} to {high}"
    return "" if low is None else f", {low} or more"
