"""A file as its row says it, and as OpenAI's file object."""

import secrets
from dataclasses import dataclass
from typing import Any

#: what files are uploaded for, and what only this program makes
PURPOSES = ("assistants", "batch", "fine-tune", "vision", "user_data", "evals")
OUTPUTS = ("assistants_output", "batch_output", "fine-tune-results")


@dataclass(frozen=True, slots=True)
class File:
    """One row of ``tables.files``. Its bytes are the blob named ``id``. Times are Unix seconds, ``sha256`` is hex."""

    id: str
    scope: str
    purpose: str
    filename: str
    bytes: int
    sha256: str
    created_at: float
    expires_at: float | None = None
    idempotency_key: str | None = None


def new_id() -> str:
    return f"file-{secrets.token_hex(16)}"


def document(file: File) -> dict[str, Any]:
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
