"""Identifiers the proxy gives out."""

import secrets
from itertools import count


class RequestIds:
    """Request ids: unique across processes by a random prefix, cheap within one by a counter."""

    def __init__(self) -> None:
        self._prefix = f"req_{secrets.token_hex(6)}"
        self._count = count(1)

    def next(self) -> str:
        return f"{self._prefix}{next(self._count):010x}"
