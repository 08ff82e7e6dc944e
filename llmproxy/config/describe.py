"""What a setting is called, what it takes, and how its value is shown. Read from the model, for messages and docs."""

import re
from enum import StrEnum
from pathlib import Path
from types import NoneType
from typing import Any, get_args, get_origin

from annotated_types import Ge, Gt, Le
from pydantic import AliasChoices, SecretStr
from pydantic.fields import FieldInfo

from llmproxy.config.settings import Settings
from llmproxy.config.values import REGULAR

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
    """Whether a setting's value must never be shown."""
    annotation = Settings.model_fields[name].annotation
    return SecretStr in (annotation, *get_args(annotation))


def shown(name: str, value: object) -> str:
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
