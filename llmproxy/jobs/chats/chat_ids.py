"""The ids of stored chat completions."""

import re
import secrets
from typing import NamedTuple, Self

PREFIX = "chatcmpl-"

#: microseconds since 1970, then chance
_ID = re.compile(PREFIX + "([0-9a-f]{14})[0-9a-f]{18}")


class ChatId(NamedTuple):
    """An id, and the time in it: when the completion was asked for, Unix seconds. It is the place in a list, too.

    So a list goes on behind one that is gone: whoever deletes what they list asks for the next page with the id of one
    that is not there any more.
    """

    time: float
    text: str

    @classmethod
    def new(cls, now: float) -> Self:
        micros = round(now * 1e6)
        return cls(micros / 1e6, f"{PREFIX}{micros:014x}{secrets.token_hex(9)}")

    @classmethod
    def read(cls, text: str) -> Self | None:
        """None for what is no id."""
        found = _ID.fullmatch(text)
        return cls(int(found[1], 16) / 1e6, text) if found else None
