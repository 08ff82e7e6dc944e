"""What a request asks, on one line: the last thing that a user said in it. Pure."""

import re
from collections.abc import Iterator
from typing import Any

import orjson

#: characters of a line; a longer one is cut
LONGEST_LINE = 160
#: characters of a text that are looked at for it: there may be much white space
_LOOKED_AT = 2_000
#: parts of one message that are looked at, and how deep they may be nested
_MOST_PARTS, _DEEPEST = 50, 20

#: members that hold what is asked, by endpoint; a body has one of them
_MEMBERS = ("messages", "input", "prompt", "query")

# as far as it is whole: not the half of an escape, nor of a character that is written as two
_PAIR = r"\\u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}"
_STRING = rf'"((?:[^"\\]|\\[^u]|\\u(?![dD][89a-fA-F])[0-9a-fA-F]{{4}}|{_PAIR}){{0,2000}})'
_ROLE = re.compile(r'"role"\s*:\s*"(\w*)"')
_CONTENT = re.compile(rf'"(?:content|text)"\s*:\s*{_STRING}', re.S)
_PLAIN = re.compile(rf'"(?:input|prompt|query)"\s*:\s*(?:\[\s*)?{_STRING}', re.S)


def asked(body: bytes) -> str:
    """The line for a request's whole body; "" where it asks nothing that can be read."""
    try:
        document = orjson.loads(body)
    except orjson.JSONDecodeError:
        return asked_in(body)
    if not isinstance(document, dict):
        return ""
    return _line(next((text for name in _MEMBERS if (text := _said(document.get(name)))), ""))


def asked_in(*pieces: bytes) -> str:
    """The same for pieces of a body, the best first: what can be read of it without its structure."""
    return next((line for piece in pieces if (line := _line(_found(piece.decode("utf-8", "replace"))))), "")


def _said(value: Any) -> str:
    """The last text of a user in messages or items; any other value as text."""
    if not isinstance(value, list):
        return _text(value)
    messages = [each for each in value if isinstance(each, dict) and "role" in each]
    users = (text for each in reversed(messages) if each["role"] == "user" and (text := _text(each)))
    return next(users, "") or (_text(messages[-1]) if messages else _text(value))


def _text(value: Any, depth: int = _DEEPEST) -> str:
    """The texts in a message, in its parts, or in a list of prompts. Calls of tools and their results are none."""
    if isinstance(value, str):
        return value
    if depth and isinstance(value, dict):
        text = _text(value.get("text"), depth - 1)
        return text or ("" if value.get("type") == "tool_result" else _text(value.get("content"), depth - 1))
    if depth and isinstance(value, list):
        return " ".join(filter(None, (_text(part, depth - 1) for part in value[:_MOST_PARTS])))
    return ""


def _found(text: str) -> str:
    roles = list(_ROLE.finditer(text))
    for place in reversed(range(len(roles))):
        if roles[place][1] == "user":
            said = next(_near(text, roles, place), None)
            if said is not None:
                return _unescaped(said)
    plain = _PLAIN.search(text)
    return _unescaped(plain[1]) if plain and not roles else ""


def _near(text: str, roles: list[re.Match[str]], place: int) -> Iterator[str]:
    """The content of the message with this role: behind it, as most write it, or before it."""
    end = roles[place + 1].start() if place + 1 < len(roles) else len(text)
    behind = _CONTENT.search(text, roles[place].end(), end)
    if behind:
        yield behind[1]
    start = roles[place - 1].end() if place else 0
    for before in reversed(list(_CONTENT.finditer(text, start, roles[place].start()))):
        yield before[1]


def _unescaped(text: str) -> str:
    try:
        return str(orjson.loads(f'"{text}"'))
    except orjson.JSONDecodeError:
        # a control character, or an escape that is none: the words are to be read all the same
        return text


def _line(text: str) -> str:
    line = " ".join(text[:_LOOKED_AT].split())
    return line if len(line) <= LONGEST_LINE else f"{line[: LONGEST_LINE - 1]}…"
