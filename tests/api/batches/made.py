"""Lines of input files, and what a batch's files say."""

import json
from typing import Any, Final

Json = dict[str, Any]

CHAT: Final = "/v1/chat/completions"

BODIES: dict[str, Json] = {
    CHAT: {"messages": [{"role": "user", "content": "hello"}]},
    "/v1/completions": {"prompt": "hello"},
    "/v1/embeddings": {"input": "hello"},
    "/v1/responses": {"input": "hello"},
}


def request(custom_id: str, content: str = "hello", *, model: str = "scripted", **more: Any) -> Json:
    """One line for chat completions, as a document."""
    body = {"model": model, "messages": [{"role": "user", "content": content}], **more}
    return {"custom_id": custom_id, "method": "POST", "url": CHAT, "body": body}


def jsonl(*lines: Json | str) -> bytes:
    return "".join(f"{line if isinstance(line, str) else json.dumps(line)}\n" for line in lines).encode()


def read(text: bytes) -> dict[str, Json]:
    """The lines of an output or error file by their ``custom_id``. Every line must be ended."""
    *lines, rest = text.split(b"\n")
    assert rest == b""
    documents = [json.loads(line) for line in lines]
    by_id = {document["custom_id"]: document for document in documents}
    assert len(by_id) == len(documents)
    return by_id
