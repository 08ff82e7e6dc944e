"""The proxy's Files and Batches, as OpenAI's API has them."""

import os
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self
from urllib.parse import quote

import httpx

from llmproxy.cli.batches.source import Source
from llmproxy.cli.client import Json, document, reaching
from llmproxy.cli.failure import CommandFailed

_TIMEOUT = 60.0


class BatchApi:
    """Use as a context manager. Every method raises ``Unreachable``, ``Refused``, ``CommandFailed``."""

    def __init__(self, url: str, key: str | None) -> None:
        self.url = url
        headers = {"authorization": f"Bearer {key}"} if key else {}
        # the proxy is on this machine or named in full: a system-wide HTTP proxy has no say
        self._http = httpx.Client(trust_env=False, timeout=_TIMEOUT, headers=headers)

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
        wanted = {"input_file_id": file_id, "endpoint": endpoint, "completion_window": "24h"}
        return self._post("/v1/batches", key, json=wanted)

    def get(self, batch_id: str) -> Json:
        """The batch as it stands."""
        with reaching(self.url):
            return document(self._http.get(f"{self.url}/v1/batches/{quote(batch_id, safe='')}"))

    def download(self, file_id: str, to: Path) -> None:
        """Puts the file's content in the place of ``to`` once all of it is on the disk. Raises ``OSError``."""
        part = to.with_name(f"{to.name}.{os.getpid()}.part")
        try:
            with part.open("wb") as file:
                self._copy(f"{self.url}/v1/files/{quote(file_id, safe='')}/content", file)
                file.flush()
                os.fsync(file.fileno())
            part.replace(to)
        finally:
            part.unlink(missing_ok=True)

    def _copy(self, url: str, file: IO[bytes]) -> None:
        with reaching(self.url), self._http.stream("GET", url) as answer:
            if answer.is_error:
                answer.read()
                document(answer)
            for piece in answer.iter_bytes():
                file.write(piece)

    def _post(self, path: str, key: str, **content: Any) -> Json:
        with reaching(self.url):
            return document(self._http.post(self.url + path, headers={"idempotency-key": key}, **content))


def id_of(answer: Json) -> str:
    """Raises ``CommandFailed`` where the answer has none."""
    found = answer.get("id")
    if not isinstance(found, str):
        raise CommandFailed(f"the proxy's answer is not understood: {str(answer)[:200]}")
    return found
