"""A batch's input file, read at constant memory: its lines, the request in each, and what is wrong with them."""

from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any

import orjson

from llmproxy.jobs.blobs import Blobs
from llmproxy.jobs.model import NewCall
from llmproxy.wire import validation
from llmproxy.wire.errors import BadRequest, ClientError
from llmproxy.wire.formats.embeddings import inputs_of
from llmproxy.wire.json_body import parse

#: the endpoints of batches, and the member that a request to each cannot do without
ENDPOINTS: Mapping[str, str] = {
    "/v1/responses": "input",
    "/v1/chat/completions": "messages",
    "/v1/embeddings": "input",
    "/v1/completions": "prompt",
}

_LONGEST_ID = 512


@dataclass(frozen=True, slots=True)
class BatchRequest:
    """``body`` is JSON; ``inputs`` is how many texts it wants embedded."""

    custom_id: str
    model: str
    body: bytes
    inputs: int = 0

    def call(self, line: int) -> NewCall:
        """The call that it becomes. Its position is the number of its line."""
        return NewCall(line, self.body, self.custom_id)


def read_line(line: bytes, endpoint: str, most_bytes: int) -> BatchRequest:
    """The request of a batch for ``endpoint``, a line of at most ``most_bytes``.

    Raises ``BadRequest`` with the code, message and parameter that OpenAI's validation gives.
    """
    if len(line) > most_bytes:
        raise BadRequest(f"This request is larger than {most_bytes} bytes.", code="request_too_large")
    members = _members(line)
    custom_id = _custom_id(members)
    if _required(members, "method", str, "a string") != "POST":
        raise BadRequest("The method of a request must be 'POST'.", code="invalid_method", param="method")
    if _required(members, "url", str, "a string") != endpoint:
        message = "The URL provided for this request does not match the batch endpoint."
        raise BadRequest(message, code="invalid_url", param="url")
    body: dict[str, Any] = _required(members, "body", dict, "an object")
    model = _checked_body(body, endpoint)
    try:
        body_json = orjson.dumps(body)
    except orjson.JSONEncodeError as error:
        raise _unparseable() from error
    return BatchRequest(custom_id, model, body_json, len(inputs_of(body)) if endpoint == "/v1/embeddings" else 0)


def _members(line: bytes) -> dict[str, Any]:
    try:
        return parse(line)
    except BadRequest as error:
        raise _unparseable() from error


def _unparseable() -> BadRequest:
    return BadRequest("This line is not parseable as valid JSON.", code="invalid_json_line")


def _required(members: Mapping[str, Any], name: str, kind: type, kind_name: str) -> Any:
    value = members.get(name)
    if value is None:
        raise validation.missing(name)
    if not isinstance(value, kind):
        raise validation.wrong_type(name, kind_name, value)
    return value


def _custom_id(members: Mapping[str, Any]) -> str:
    custom_id: str = _required(members, "custom_id", str, "a string")
    if len(custom_id) > _LONGEST_ID:
        raise validation.too_long("custom_id", _LONGEST_ID, len(custom_id))
    if "\0" in custom_id:
        # PostgreSQL keeps no text with one
        raise BadRequest("A 'custom_id' cannot hold a null character.", code="invalid_value", param="custom_id")
    return custom_id


def _checked_body(body: Mapping[str, Any], endpoint: str) -> str:
    """Returns the model's name."""
    model = body.get("model")
    if model is None or model == "":
        raise _lacking("model")
    if not isinstance(model, str):
        raise validation.wrong_type("body.model", "a string", model)
    if "\0" in model:
        raise unknown_model(model)
    required = ENDPOINTS[endpoint]
    if body.get(required) is None:
        raise _lacking(required)
    if body.get("stream") not in (None, False):
        message = "Streaming is not supported in batches."
        raise BadRequest(message, code="streaming_unsupported", param="body.stream")
    return model


def unknown_model(model: str) -> BadRequest:
    message = f"The model {model[:200]!r} does not exist."
    return BadRequest(message, code="model_not_found", param="body.model")


def _lacking(name: str) -> BadRequest:
    return BadRequest(f"{name.capitalize()} parameter is required.", code="invalid_request", param=f"body.{name}")


async def numbered_lines(blobs: Blobs, name: str) -> AsyncGenerator[tuple[int, list[bytes]]]:
    """The lines, some at a time, with the number of the first of them; the file's first line is 1.

    Raises ``FileNotFoundError``, ``Unavailable``. To be closed by who does not read to the end.
    """
    number = 1
    async with aclosing(blobs.lines(name)) as pages:
        async for lines in pages:
            yield number, lines
            number += len(lines)


MOST_REQUESTS = 50_000
MOST_BYTES = 200 * 1024 * 1024
#: texts to be embedded, in all lines together
MOST_INPUTS = 50_000
#: errors that are listed; of the others one more entry says how many they are
MOST_ERRORS = 1_000

Entry = dict[str, Any]


class InputCheck:
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

    @property
    def refused(self) -> bool:
        """Whether an error was noted."""
        return bool(self._entries)

    def take(self, number: int, lines: list[bytes]) -> list[NewCall]:
        """The next lines, of which the first is the file's ``number``'th. Returns the calls that good ones become."""
        calls = []
        for at, line in enumerate(lines, number):
            self._bytes += len(line) + 1
            if line.strip():
                self.requests += 1
                call = self._line(at, line)
                if call is not None:
                    calls.append(call)
            if self._exceeds(at):
                break
        return calls

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

    def _line(self, at: int, line: bytes) -> NewCall | None:
        try:
            request = read_line(line, self._endpoint, self._most_line_bytes)
            self._among_others(at, request)
        except BadRequest as error:
            self.refuse(error, at)
            return None
        return request.call(at)

    def _among_others(self, at: int, request: BatchRequest) -> None:
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
