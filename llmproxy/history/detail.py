"""One exchange with all that is recorded of it, and one line of its prompt."""

import asyncio
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import orjson
from sqlalchemy import Select, case, func, select

from llmproxy.database.engine import Database
from llmproxy.history.search import BODIES, NAMES
from llmproxy.history.tables import history

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


def preview(body: bytes) -> str:
    """The line for a request's whole body; "" if it has no prompt that can be read."""
    try:
        document = orjson.loads(body)
    except orjson.JSONDecodeError:
        return preview_of_pieces(body)
    if not isinstance(document, dict):
        return ""
    return _line(next((text for name in _MEMBERS if (text := _last_user_text(document.get(name)))), ""))


def preview_of_pieces(*pieces: bytes) -> str:
    """The same for pieces of a body, the best first: what can be read of it without its structure."""
    return next((line for piece in pieces if (line := _line(_found(piece.decode("utf-8", "replace"))))), "")


def _last_user_text(value: Any) -> str:
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
            content = next(_near(text, roles, place), None)
            if content is not None:
                return _unescaped(content)
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
    """Previews by id, if there is something to read. Raises what the database raises."""
    lines: dict[int, str] = {}
    read = 0
    for at in range(0, len(ids), BATCH):
        query = select(*_COLUMNS).where(history.c.id.in_(ids[at : at + BATCH]), _BODY.is_not(None))
        async with database.read() as connection:
            rows = (await connection.execute(query)).all()
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
            seen[head, tail] = preview(head) if tail is None else preview_of_pieces(tail, head)
    return {id: seen[head, tail] for id, head, tail in rows if seen[head, tail]}


Record = Mapping[str, Any]


async def newest(database: Database, request_id: str, id: int | None = None) -> Record | None:
    """The row of this id, with ``detail`` parsed; where a caller gave it to several, the newest, or that with the
    number ``id``."""
    query = select(history).where(history.c.request_id == request_id)
    return await _first(database, query if id is None else query.where(history.c.id == id))


async def numbered(database: Database, id: int) -> Record | None:
    """The row with this number, with ``detail`` parsed."""
    return await _first(database, select(history).where(history.c.id == id))


async def _first(database: Database, query: Select[Any]) -> Record | None:
    async with database.read() as connection:
        row = (await connection.execute(query.order_by(history.c.id.desc()).limit(1))).mappings().first()
    if row is None:
        return None
    record = {str(name): value for name, value in row.items()}
    return {**record, "detail": orjson.loads(record["detail"])}


def to_json(row: Record) -> dict[str, Any]:
    """The record as a document: what lists show, and ``phases``, ``identity``, ``scope``, ``query``, ``request``,
    ``response``. ``query`` is the text of the URL's query, None where that may hold a secret and is not kept."""
    detail = row["detail"]
    cut = detail.get("cut", ())
    listed = {NAMES.get(name, name): row[name] for name in row if name not in (*BODIES, "detail")}
    return {
        **listed,
        "identity": detail.get("identity", ""),
        "scope": detail.get("scope", ""),
        "query": detail.get("plain_query") if "query" in detail else "",
        "phases": {phase: micros / 1e6 for phase, micros in detail.get("phases", {}).items()},
        "request": _body(row["request_body"], "request" in cut),
        "response": _body(row["response_body"], "response" in cut),
    }


def body_of(body: bytes | None) -> Any:
    """The JSON document in a body, or its text if it is not JSON; None without a body."""
    if body is None:
        return None
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError:
        return body.decode("utf-8", "replace")


def _body(body: bytes | None, cut: bool) -> dict[str, Any]:
    """A body for an answer; ``cut`` says that it was longer than what is kept."""
    found = body_of(body)
    # a document is shown as it was written, to the last digit
    as_written = found if body is None or isinstance(found, str) else orjson.Fragment(body)
    return {"body": as_written, "bytes": len(body or b""), "cut": cut}
