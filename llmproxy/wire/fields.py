"""Header fields that can be sent (RFC 9110 section 5). Pure."""

import re
from collections.abc import Iterable

_NAME = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_CONTROL = re.compile(rb"[\x00-\x08\x0a-\x1f\x7f]")


def sendable(fields: Iterable[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
    """Those whose name is a token and whose value holds no control character; a server refuses to write the others,
    and the whole response with them."""
    return [(name, value) for name, value in fields if _NAME.fullmatch(name) and not _CONTROL.search(value)]
