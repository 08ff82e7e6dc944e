"""The proxy's Files and Batches, as OpenAI's API has them, and the state of a batch."""

import hashlib
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self
from urllib.parse import quote

from llmproxy.cli.client import Json, document, http_client, reaching
from llmproxy.cli.format import NOTHING, aligned, printable
from llmproxy.cli.options import CommandFailed

_TIMEOUT = 60.0


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


class BatchApi:
    """Use as a context manager. Every method raises ``Unreachable``, ``Refused``, ``CommandFailed``."""

    def __init__(self, url: str, key: str | None) -> None:
        self.url = url
        self._http = http_client(url, key, _TIMEOUT)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._http.close()

    def upload(self, source: Source, key: str) -> str:
        """Sends the file, a piece at a time. Returns its id, the same for the same ``key``."""
        with source.path.open("rb") as file:
            content = {"file": (source.path.name, file, "application/jsonl")}
            sent = self._post("/v1/files", key, data={"purpose": "batch"}, files=content)
        return id_of(sent)

    def create(self, file_id: str, endpoint: str, key: str) -> Json:
        """Begins the batch: the same one for the same ``key``."""
        body = {"input_file_id": file_id, "endpoint": endpoint, "completion_window": "24h"}
        return self._post("/v1/batches", key, json=body)

    def get(self, batch_id: str) -> Json:
        """The batch's present document."""
        with reaching(self.url):
            return document(self._http.get(f"/v1/batches/{quote(batch_id, safe='')}"))

    def download(self, file_id: str, to: Path) -> None:
        """Puts the file's content in the place of ``to`` once all of it is on the disk. Raises ``OSError``."""
        part = to.with_name(f"{to.name}.{os.getpid()}.part")
        try:
            with part.open("wb") as file:
                self._copy(f"/v1/files/{quote(file_id, safe='')}/content", file)
                file.flush()
                os.fsync(file.fileno())
            part.replace(to)
        finally:
            part.unlink(missing_ok=True)

    def _copy(self, path: str, file: IO[bytes]) -> None:
        with reaching(self.url), self._http.stream("GET", path) as answer:
            if answer.is_error:
                answer.read()
                document(answer)
            for piece in answer.iter_bytes():
                file.write(piece)

    def _post(self, path: str, key: str, **content: Any) -> Json:
        with reaching(self.url):
            return document(self._http.post(path, headers={"idempotency-key": key}, **content))


def id_of(answer: Json) -> str:
    """The id in an answer. Raises ``CommandFailed`` without one."""
    found = answer.get("id")
    if not isinstance(found, str):
        raise CommandFailed(f"the proxy's answer is not understood: {str(answer)[:200]}")
    return found


_OVER = frozenset({"completed", "failed", "cancelled", "expired"})
#: of a message from the proxy
_LONGEST = 300


@dataclass(frozen=True)
class BatchStatus:
    """``hits`` is None if the proxy does not report them. ``output`` and ``errors`` are ids of files, "" for no file.
    ``seconds`` is None while it is not over."""

    id: str
    status: str
    total: int
    completed: int
    failed: int
    hits: int | None
    input_tokens: int
    output_tokens: int
    output: str
    errors: str
    seconds: int | None
    #: line by line, what is wrong with the input
    flaws: tuple[str, ...]

    @property
    def over(self) -> bool:
        return self.status in _OVER

    @property
    def refused(self) -> bool:
        """Whether its input was wrong, and nothing was run."""
        return self.status == "failed"

    @property
    def ended(self) -> int:
        """Lines that are over."""
        return self.completed + self.failed


def parse_status(batch: Json) -> BatchStatus:
    """Reads a batch's document. Raises ``CommandFailed`` for another one."""
    try:
        counts, usage = batch["request_counts"], batch.get("usage") or {}
        status, hits = str(batch["status"]), (batch.get("llmproxy") or {}).get("hits")
        end = batch.get(f"{status}_at") if status in _OVER else None
        return BatchStatus(
            id=printable(str(batch["id"]), 80),
            status=printable(status, 20),
            total=int(counts["total"]),
            completed=int(counts["completed"]),
            failed=int(counts["failed"]),
            hits=None if hits is None else int(hits),
            input_tokens=int(usage.get("input_tokens", 0)),
            output_tokens=int(usage.get("output_tokens", 0)),
            output=str(batch.get("output_file_id") or ""),
            errors=str(batch.get("error_file_id") or ""),
            seconds=None if end is None else int(end) - int(batch["created_at"]),
            flaws=tuple(_flaw(each) for each in (batch.get("errors") or {}).get("data", ())),
        )
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise CommandFailed(f"the proxy's answer is not understood: {printable(str(batch), _LONGEST)}") from error


def summary(batch: BatchStatus) -> Iterator[str]:
    """What came of it, for people."""
    rows = [
        ["batch", f"{batch.id}, {batch.status}"],
        ["completed", f"{batch.completed:,} of {batch.total:,}"],
        ["failed", f"{batch.failed:,}"],
        ["hits", NOTHING if batch.hits is None else f"{batch.hits:,}"],
        ["tokens", f"{batch.input_tokens:,} of prompts, {batch.output_tokens:,} of completions"],
        ["took", NOTHING if batch.seconds is None else f"{batch.seconds:,} s"],
    ]
    yield from aligned(rows, left=2)


def _flaw(error: Json) -> str:
    line = error.get("line")
    message = printable(str(error["message"]), _LONGEST)
    return message if line is None else f"line {line}: {message}"
