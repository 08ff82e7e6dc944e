"""A file as its row says it, and as OpenAI's file object; the parameters of an upload and a list, read strictly.
Pure."""

import re
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from llmproxy.jobs.model import File
from llmproxy.wire import validation
from llmproxy.wire.documents import peek
from llmproxy.wire.errors import BadRequest
from llmproxy.wire.validation import query_limit, query_newest_first

#: what files are uploaded for, and what only this program makes
PURPOSES = ("assistants", "batch", "fine-tune", "vision", "user_data", "evals")
OUTPUTS = ("assistants_output", "batch_output", "fine-tune-results")


def new_id() -> str:
    return f"file-{secrets.token_hex(16)}"


def file_object(file: File) -> dict[str, Any]:
    """OpenAI's ``OpenAIFile``."""
    return {
        "id": file.id,
        "object": "file",
        "bytes": file.bytes,
        "created_at": int(file.created_at),
        # the lifetime counts from the second that is shown
        "expires_at": None if file.expires_at is None else int(file.expires_at),
        "filename": file.filename,
        "purpose": file.purpose,
        "status": "processed",
        "status_details": None,
    }


#: the largest input file of a batch
BATCH_BYTES = 200 * 1024 * 1024
#: how long a batch's files are kept if the caller does not say
BATCH_SECONDS = 30 * 86_400

#: bytes at the beginning of a file that tell what it is
HEAD = 256 * 1024

_LEAST_SECONDS, _MOST_SECONDS = 3_600, 2_592_000
_MOST_LISTED = 10_000
_LONGEST_SHOWN = 100
_BOM = b"\xef\xbb\xbf"


@dataclass(frozen=True, slots=True)
class FileQuery:
    """Which files. ``after`` is the id of the last one of the page before."""

    scope: str
    purpose: str | None = None
    after: str | None = None
    limit: int = 10_000
    newest_first: bool = True


def purpose_of(fields: Mapping[str, str]) -> str:
    """The purpose of a file. Raises ``BadRequest`` in OpenAI's words."""
    purpose = fields.get("purpose")
    if purpose is None:
        raise BadRequest("'purpose' is a required property", param="purpose")
    if purpose not in PURPOSES:
        raise BadRequest(f"{purpose[:_LONGEST_SHOWN]!r} is not one of {[*PURPOSES]} - 'purpose'", param="purpose")
    return purpose


def lifetime_of(fields: Mapping[str, str], purpose: str) -> int | None:
    """Seconds that the file is kept, None for ever. Raises ``BadRequest``."""
    anchor, seconds = fields.get("expires_after[anchor]"), fields.get("expires_after[seconds]")
    if anchor is None and seconds is None:
        return BATCH_SECONDS if purpose == "batch" else None
    for name, value in (("anchor", anchor), ("seconds", seconds)):
        if value is None:
            raise validation.missing(f"expires_after.{name}")
    if anchor != "created_at":
        raise validation.not_allowed("expires_after.anchor", str(anchor), ["created_at"])
    if not re.fullmatch("[0-9]{1,9}", str(seconds)) or not _LEAST_SECONDS <= int(str(seconds)) <= _MOST_SECONDS:
        raise BadRequest(
            f"'expires_after.seconds' must be an integer from {_LEAST_SECONDS} to {_MOST_SECONDS}.",
            code="invalid_value",
            param="expires_after.seconds",
        )
    return int(str(seconds))


def check_begins_as_jsonl(head: bytes) -> None:
    """Raises ``BadRequest`` if the first line of a file is not a JSON object. The batch checks the other lines.
    ``head`` is the first ``HEAD`` bytes: of a longer line no more is seen than how it begins."""
    line, end, _ = head.removeprefix(_BOM).lstrip().partition(b"\n")
    if not line:
        return
    whole = bool(end) or len(head) < HEAD
    if peek(line) is None if whole else not line.startswith(b"{"):
        raise BadRequest("Invalid file format for Batch API. Must be .jsonl")


def read_list_query(query: Mapping[str, str], scope: str) -> FileQuery:
    """What the query of a list says of the files in ``scope``. Raises ``BadRequest``."""
    limit, newest_first = query_limit(query, _MOST_LISTED, _MOST_LISTED), query_newest_first(query, "desc")
    purpose = query.get("purpose")
    if purpose is not None and purpose not in (*PURPOSES, *OUTPUTS):
        raise BadRequest(f"'purpose' must be one of {[*PURPOSES, *OUTPUTS]}.", param="purpose")
    return FileQuery(scope, purpose, query.get("after"), limit, newest_first)
