"""What the query of a list says of its page, read strictly. Pure."""

import re
from collections.abc import Mapping

from llmproxy.wire.errors import BadRequest

#: how many a page has at most, and where nobody says
_MOST, _USUAL = 100, 20


def asked_limit(query: Mapping[str, str], usual: int = _USUAL, most: int = _MOST) -> int:
    """``limit``. Raises ``BadRequest``."""
    text = query.get("limit", str(usual))
    if not re.fullmatch("[0-9]{1,9}", text) or not 1 <= int(text) <= most:
        raise BadRequest(f"'limit' must be a number from 1 to {most}.", code="invalid_value", param="limit")
    return int(text)


def asked_newest_first(query: Mapping[str, str], usual: str) -> bool:
    """Whether ``order`` wants the newest first; ``usual`` is "asc" or "desc". Raises ``BadRequest``."""
    order = query.get("order", usual)
    if order not in ("asc", "desc"):
        raise BadRequest("'order' must be 'asc' or 'desc'.", code="invalid_value", param="order")
    return order == "desc"
