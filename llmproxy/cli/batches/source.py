"""The file of requests: what is sent, and for which endpoint."""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path

from llmproxy.cli.failure import CommandFailed

_LIKE = '{"custom_id": "1", "method": "POST", "url": "/v1/chat/completions", "body": {...}}'


@dataclass(frozen=True)
class Source:
    """``endpoint`` is the path that its first line names, ``size`` is in bytes."""

    path: Path
    endpoint: str
    sha256: str
    size: int


def inspect(path: Path) -> Source:
    """Reads the file once. Its lines are the proxy's to check, but for the first.

    Raises ``CommandFailed``, ``OSError``.
    """
    with path.open("rb") as file:
        line = file.readline()
        file.seek(0)
        digest = hashlib.file_digest(file, "sha256")
        return Source(path, _endpoint(path, line), digest.hexdigest(), file.tell())


def _endpoint(path: Path, line: bytes) -> str:
    if not line:
        raise CommandFailed(f"{path} is empty: it takes a request a line, like {_LIKE}")
    try:
        request = json.loads(line)
    except ValueError:
        request = None
    url = request.get("url") if isinstance(request, dict) else None
    if not isinstance(url, str):
        raise CommandFailed(f"{path}, line 1: this is no request of a batch; one is like {_LIKE}")
    return url
