"""The kinds of values that settings have beside the plain ones, and how each is read from a text."""

import json
import re
from base64 import b64decode
from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator, SecretStr
from pydantic_settings import NoDecode

#: system prompts by ``instruction_type``; the settings add to them and replace them
INSTRUCTIONS = {
    "default": "You are a helpful assistant.",
    "concise": "You are a helpful assistant. Answer as briefly as you can, without introduction or repetition.",
    "code": "You are an expert programmer. Answer with correct, complete code in one block, and explain only what the "
    "code does not say.",
    "summarize": "Summarize the text that the user gives in a few sentences. Keep to what the text says.",
    "translate": "Translate the text that the user gives into English, or into the language that the user names. "
    "Answer with the translation alone.",
}


def _parted(value: Any) -> Any:
    if isinstance(value, str):
        return tuple(word for word in (part.strip() for part in value.split(",")) if word)
    return value


def _web_address(value: str) -> str:
    if value and not value.startswith(("http://", "https://")):
        raise ValueError(f"{value!r} is no http:// or https:// URL")
    return value


def _bases(value: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(_web_address(url).rstrip("/").removesuffix("/v1") for url in value)


def _patterns(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    try:
        found = json.loads(value)
    except ValueError:
        found = None
    # a pattern may look like an array: [0-9] is none, ["a"] is one
    is_array = isinstance(found, list) and all(isinstance(each, str) for each in found)
    return found if is_array else (value,)


def _searchable(value: tuple[str, ...]) -> tuple[str, ...]:
    for pattern in value:
        try:
            matches_nothing = re.search(pattern, "") is not None
        except re.error as error:
            raise ValueError(f"{pattern!r} is no regular expression: {error}") from error
        if matches_nothing:
            raise ValueError(f"{pattern!r} would match everywhere, even nothing at all")
    return value


def _with_the_usual(value: Any) -> Any:
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except ValueError as error:
            raise ValueError("a JSON object of names and system prompts is wanted") from error
    return {**INSTRUCTIONS, **value} if isinstance(value, dict) else value


def _decodable(value: SecretStr | None) -> SecretStr | None:
    secret = value.get_secret_value() if value is not None else ""
    if secret.startswith("whsec_"):
        try:
            b64decode(secret.removeprefix("whsec_"), validate=True)
        except ValueError as error:
            raise ValueError("base64 is wanted after `whsec_`") from error
    return value


#: in a setting's metadata: its words are regular expressions, and are not parted at commas
REGULAR = "regular expressions"

Words = Annotated[tuple[str, ...], NoDecode, BeforeValidator(_parted)]
Secrets = Annotated[tuple[SecretStr, ...], NoDecode, BeforeValidator(_parted)]
#: with or without ``/v1``; kept without
BaseUrls = Annotated[Words, AfterValidator(_bases)]
#: of a web server; empty for none
WebAddress = Annotated[str, AfterValidator(_web_address)]
Patterns = Annotated[tuple[str, ...], NoDecode, REGULAR, BeforeValidator(_patterns), AfterValidator(_searchable)]
Instructions = Annotated[dict[str, str], NoDecode, BeforeValidator(_with_the_usual)]
#: of Standard Webhooks
SigningSecret = Annotated[SecretStr | None, AfterValidator(_decodable)]
