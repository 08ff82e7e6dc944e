"""What the query of a list asks for, read strictly. Pure."""

import re
from collections.abc import Mapping

from llmproxy.jobs.answers.answer import AnswerKind
from llmproxy.jobs.answers.labels import labels_of
from llmproxy.jobs.answers.paging import Wanted
from llmproxy.jobs.chats.ids import ChatId
from llmproxy.wire.errors import BadRequest

_MOST, _USUAL = 100, 20
#: ``metadata[name]=value``
_LABEL = re.compile(r"metadata\[(.*)\]", re.DOTALL)


def asked_list(query: Mapping[str, str], scope: str) -> Wanted:
    """The caller's own chat completions that they want. Raises ``BadRequest``."""
    limit, newest_first = asked_page(query)
    labels = {found[1]: value for name, value in query.items() if (found := _LABEL.fullmatch(name))}
    return Wanted(
        AnswerKind.CHAT,
        scope,
        after=_after(query),
        limit=limit,
        newest_first=newest_first,
        model=query.get("model"),
        labels=labels_of(labels),
    )


def asked_page(query: Mapping[str, str]) -> tuple[int, bool]:
    """``limit``, and whether ``order`` wants the newest first. Raises ``BadRequest``."""
    limit, order = query.get("limit", str(_USUAL)), query.get("order", "asc")
    if not re.fullmatch("[0-9]{1,3}", limit) or not 1 <= int(limit) <= _MOST:
        raise BadRequest(f"'limit' must be a number from 1 to {_MOST}.", code="invalid_value", param="limit")
    if order not in ("asc", "desc"):
        raise BadRequest("'order' must be 'asc' or 'desc'.", code="invalid_value", param="order")
    return int(limit), order == "desc"


def unknown_after() -> BadRequest:
    return BadRequest("'after' must be the 'last_id' of the page before.", code="invalid_value", param="after")


def _after(query: Mapping[str, str]) -> ChatId | None:
    after = query.get("after")
    if after is None:
        return None
    id = ChatId.read(after)
    if id is None:
        raise unknown_after()
    return id
