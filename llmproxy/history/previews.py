"""What the requests of a page ask, a line for each, read from their bodies. A page costs a bounded amount of work."""

import asyncio
from collections.abc import Sequence
from typing import Any

from sqlalchemy import case, func, select

from llmproxy.database.engine import Database
from llmproxy.history.preview import asked, asked_in
from llmproxy.history.tables import history

#: bytes of a longer body that are read of its beginning and of its end, where the last message is most often
HEAD, TAIL = 32 * 1024, 64 * 1024
#: rows read at once, and bytes read for one page: what is beyond has no preview
BATCH, MOST_BYTES = 25, 16 * 1024 * 1024

_BODY = history.c.request_body
_SIZE = func.length(_BODY)
_LONG = _SIZE > HEAD + TAIL
_COLUMNS = (
    history.c.id,
    case((_LONG, func.substr(_BODY, 1, HEAD)), else_=_BODY).label("head"),
    case((_LONG, func.substr(_BODY, _SIZE - TAIL + 1, TAIL))).label("tail"),
)


async def previews(database: Database, ids: Sequence[int]) -> dict[int, str]:
    """By id, where there is something to read. Raises what the database does."""
    lines: dict[int, str] = {}
    read = 0
    for at in range(0, len(ids), BATCH):
        wanted = select(*_COLUMNS).where(history.c.id.in_(ids[at : at + BATCH]), _BODY.is_not(None))
        async with database.read() as connection:
            rows = (await connection.execute(wanted)).all()
        lines |= await asyncio.to_thread(_lines, rows)
        read += sum(len(head) + len(tail or b"") for _, head, tail in rows)
        if read > MOST_BYTES:
            break
    return lines


def _lines(rows: Sequence[Any]) -> dict[int, str]:
    # repeats are most of what there is
    seen: dict[tuple[bytes, bytes | None], str] = {}
    for _, head, tail in rows:
        if (head, tail) not in seen:
            seen[head, tail] = asked(head) if tail is None else asked_in(tail, head)
    return {id: seen[head, tail] for id, head, tail in rows if seen[head, tail]}
