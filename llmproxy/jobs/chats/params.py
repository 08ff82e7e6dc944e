"""What the query of a list asks for, read strictly. Pure."""

import re
from collections.abc import Mapping

from llmproxy.jobs.answers.answer import AnswerKind
from llmproxy.jobs.answers.labels import labels_of
from llmproxy.jobs.answers.paging import StoredQuery
from llmproxy.jobs.chats.chat_ids import ChatId
from llmproxy.wire.errors import BadRequest
from llmproxy.wire.validation import query_limit, query_newest_first

#: ``metadata[name]=value``
_LABEL = re.compile(r"metadata\[(.*)\]", re.DOTALL)


def asked_list(query: Mapping[str, str], scope: str) -> StoredQuery:
    """The caller's own chat completions that they want. Raises ``BadRequest``."""
    labels = {found[1]: value for name, value in query.items() if (found := _LABEL.fullmatch(name))}
    return StoredQuery(
        AnswerKind.CHAT,
        scope,
        after=_after(query),
        limit=query_limit(query),
        newest_first=query_newest_first(query, "asc"),
        model=query.get("model"),
        labels=labels_of(labels),
    )


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
