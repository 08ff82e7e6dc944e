"""The kinds of values that settings have beside the plain ones, and how each is read from a text."""

import ipaddress
import json
import re
from base64 import b64decode
from hashlib import sha256
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import urlsplit

from platformdirs import user_data_path
from pydantic import AfterValidator, BeforeValidator, SecretStr

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

#: what arrives in a header as it was sent: blanks around it would not
_SENDABLE = re.compile("[!-~]([ -~]*[!-~])?")


def _split_words(value: Any) -> Any:
    if isinstance(value, str):
        return tuple(word for word in (part.strip() for part in value.split(",")) if word)
    return value


def _web_address(value: str) -> str:
    if value and not value.startswith(("http://", "https://")):
        raise ValueError(f"{value!r} is no http:// or https:// URL")
    return value


def _base_urls(value: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(_base_url(url) for url in value)


def _base_url(value: str) -> str:
    """Without ``/v1``. Raises ``ValueError`` for what cannot be the beginning of a server's URLs."""
    parts = urlsplit(_web_address(value))
    try:
        port = parts.port
    except ValueError:
        port = 0
    if not parts.hostname or port == 0:
        raise ValueError(f"{value!r} has no {'port from 1 to 65535' if parts.hostname else 'host'}")
    if parts.query or parts.fragment:
        raise ValueError(f"{value!r} goes on after its path; a base URL ends there")
    return value.rstrip("/").removesuffix("/v1")


def _check_networks(value: tuple[str, ...]) -> tuple[str, ...]:
    for network in value:
        try:
            ipaddress.ip_network(network)
        except ValueError as error:
            raise ValueError(f"{network!r} is no address or network, like 127.0.0.1 or 10.0.0.0/8") from error
    return value


def _parse_patterns(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    try:
        found = json.loads(value)
    except ValueError:
        found = None
    # a pattern may look like an array: [0-9] is none, ["a"] is one
    is_array = isinstance(found, list) and all(isinstance(each, str) for each in found)
    return found if is_array else (value,)


def _check_patterns(value: tuple[str, ...]) -> tuple[str, ...]:
    for pattern in value:
        try:
            matches_nothing = re.search(pattern, "") is not None
        except re.error as error:
            raise ValueError(f"{pattern!r} is no regular expression: {error}") from error
        if matches_nothing:
            raise ValueError(f"{pattern!r} would match everywhere, even nothing at all")
    return value


def _with_defaults(value: Any) -> Any:
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except ValueError as error:
            raise ValueError("a JSON object of names and system prompts is wanted") from error
    return {**INSTRUCTIONS, **value} if isinstance(value, dict) else value


def _check_signing_secret(value: SecretStr | None) -> SecretStr | None:
    secret = value.get_secret_value() if value is not None else ""
    if value is not None and not secret.strip():
        raise ValueError("it is blank: anybody could sign with it")
    if secret.startswith("whsec_"):
        try:
            b64decode(secret.removeprefix("whsec_"), validate=True)
        except ValueError as error:
            raise ValueError("base64 is wanted after `whsec_`") from error
    return value


def default_database() -> Path:
    """The file ``data/llmproxy.db`` in the working directory if it exists, else one in the user's data folder."""
    here = Path("data/llmproxy.db")
    return here if here.exists() else user_data_path("llmproxy", appauthor=False) / here.name


def parse_api_key(text: str) -> tuple[str, str]:
    """Name and secret of ``name:secret``. A secret alone is named by its hash."""
    name, colon, secret = text.partition(":")
    return (name, secret) if colon else (sha256(text.encode()).hexdigest()[:8], text)


def _split_keys(value: Any) -> Any:
    # an empty word is not left out as in other lists: it is a variable that was never set
    return tuple(part.strip() for part in value.split(",")) if isinstance(value, str) else value


def _check_api_keys(value: tuple[SecretStr, ...]) -> tuple[SecretStr, ...]:
    """Checks that keys are usable and different. No message shows one: in a wrong key every part may be the secret."""
    names: set[str] = set()
    secrets: set[str] = set()
    for number, key in enumerate(value, 1):
        name, secret = parse_api_key(key.get_secret_value())
        if not secret.strip():
            raise ValueError(f"key {number} is empty; each is `name:key` or just the key")
        if not name.strip() or not name.isprintable():
            raise ValueError(f"key {number} has no printable name before its colon; each is `name:key` or just the key")
        if not _SENDABLE.fullmatch(secret):
            raise ValueError(f"key {number} cannot be sent: only ASCII is allowed, without blanks around it")
        if name.strip() in names or secret in secrets:
            raise ValueError(f"key {number} has the name or the secret of one before it")
        names.add(name.strip())
        secrets.add(secret)
    return value


def _check_header_value(value: SecretStr | None) -> SecretStr | None:
    if value is not None and not _SENDABLE.fullmatch(value.get_secret_value()):
        raise ValueError("ASCII characters are wanted, without blanks around them")
    return value


#: in a setting's metadata: its words are regular expressions, and are not parted at commas
REGULAR = "regular expressions"

Words = Annotated[tuple[str, ...], BeforeValidator(_split_words)]
#: addresses and networks, by ``ipaddress``
Networks = Annotated[Words, AfterValidator(_check_networks)]
ApiKeys = Annotated[tuple[SecretStr, ...], BeforeValidator(_split_keys), AfterValidator(_check_api_keys)]
#: what is sent in a header; none where it is not given
Secret = Annotated[SecretStr | None, AfterValidator(_check_header_value)]
#: with or without ``/v1``; kept without
BaseUrls = Annotated[Words, AfterValidator(_base_urls)]
#: of a web server; empty for none
WebAddress = Annotated[str, AfterValidator(_web_address)]
Patterns = Annotated[tuple[str, ...], REGULAR, BeforeValidator(_parse_patterns), AfterValidator(_check_patterns)]
Instructions = Annotated[dict[str, str], BeforeValidator(_with_defaults)]
#: of Standard Webhooks
SigningSecret = Annotated[SecretStr | None, AfterValidator(_check_signing_secret)]
