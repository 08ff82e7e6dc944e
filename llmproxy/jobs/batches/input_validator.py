"""All lines of a batch's input file, taken one after the other: what they are together, and what is wrong with them.

Pure, and at constant memory: of the lines only a digest of each ``custom_id`` is kept.
"""

from hashlib import blake2b
from typing import Any

from llmproxy.jobs.batches.lines import Request, read_line
from llmproxy.wire.errors import BadRequest, ClientError

MOST_REQUESTS = 50_000
MOST_BYTES = 200 * 1024 * 1024
#: texts to be embedded, in all lines together
MOST_INPUTS = 50_000
#: errors that are listed; of the others one more entry says how many they are
MOST_ERRORS = 1_000

Entry = dict[str, Any]


class Checking:
    """One file. ``over`` once nothing that may follow can make it a good one: too much was read already."""

    def __init__(self, endpoint: str, most_line_bytes: int) -> None:
        self.requests = 0
        #: the first request's, "" while there is none
        self.model = ""
        self.model_line = 0
        self.over = False
        self._endpoint = endpoint
        self._most_line_bytes = most_line_bytes
        self._bytes = 0
        self._inputs = 0
        self._ids: set[bytes] = set()
        self._entries: list[Entry] = []
        self._unlisted = 0

    def take(self, number: int, lines: list[bytes]) -> None:
        """The next lines, of which the first is the file's ``number``'th."""
        for at, line in enumerate(lines, number):
            self._bytes += len(line) + 1
            if line.strip():
                self.requests += 1
                self._line(at, line)
            if self._exceeds(at):
                return

    def refuse(self, error: ClientError, line: int | None = None) -> None:
        """Notes an error. ``line`` counts from 1."""
        if len(self._entries) < MOST_ERRORS:
            self._entries.append(
                {"code": error.error_code, "line": line, "message": error.message, "param": error.param}
            )
        else:
            self._unlisted += 1

    def errors(self) -> list[Entry]:
        """What is wrong with the file, the errors of a batch object; empty for a good one. Ask at the end."""
        if self.requests == 0 and not self._entries:
            self.refuse(BadRequest("The input file holds no requests.", code="empty_file"))
        if not self._unlisted:
            return self._entries
        message = f"{self._unlisted} more lines have errors; they are not listed."
        return [*self._entries, {"code": "too_many_errors", "line": None, "message": message, "param": None}]

    def _line(self, at: int, line: bytes) -> None:
        try:
            request = read_line(line, self._endpoint, self._most_line_bytes)
            self._among_others(at, request)
        except BadRequest as error:
            self.refuse(error, at)

    def _among_others(self, at: int, request: Request) -> None:
        digest = blake2b(request.custom_id.encode(), digest_size=16).digest()
        if digest in self._ids:
            message = (
                "The custom_id for this request is a duplicate of another request. "
                "The custom_id parameter must be unique for each request in a batch."
            )
            raise BadRequest(message, code="duplicate_custom_id", param="custom_id")
        self._ids.add(digest)
        if not self.model:
            self.model, self.model_line = request.model, at
        elif request.model != self.model:
            message = f"All requests of a batch must name the same model: the first one names {self.model[:200]!r}."
            raise BadRequest(message, code="model_mismatch", param="body.model")
        self._inputs += request.inputs

    def _exceeds(self, at: int) -> bool:
        if self.requests > MOST_REQUESTS:
            self._refuse_all(f"A batch takes at most {MOST_REQUESTS} requests.", "too_many_tasks", None)
        elif self._bytes > MOST_BYTES:
            self._refuse_all(f"The input file of a batch takes at most {MOST_BYTES} bytes.", "file_too_large", None)
        elif self._inputs > MOST_INPUTS:
            self._refuse_all(f"A batch embeds at most {MOST_INPUTS} inputs.", "too_many_inputs", at)
        return self.over

    def _refuse_all(self, message: str, code: str, line: int | None) -> None:
        """The only error then: the lines that were not read could have others."""
        self.over = True
        self._entries, self._unlisted = [], 0
        self.refuse(BadRequest(message, code=code, param="body.input" if line is not None else None), line)
