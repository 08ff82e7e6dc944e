"""What a request for a Response says of its keeping, and the request that is left for the model server."""

from dataclasses import dataclass
from typing import Any

from llmproxy.wire.canonical import canonical
from llmproxy.wire.conversation import items_of
from llmproxy.wire.dialect import Document
from llmproxy.wire.documents import dump
from llmproxy.wire.errors import BadRequest, ProxyError, UnreadableBody, UpstreamStatus
from llmproxy.wire.responses_document import complete

#: windows of ``background_options`` in which nobody waits for the answer
_LATER = ("2h", "8h")

#: statuses that blame the request
_REFUSED = frozenset({400, 413, 422})

#: members that speak to us; model servers refuse them or take them for something else
OURS = frozenset({"store", "background", "background_options", "previous_response_id"})


@dataclass(frozen=True, slots=True)
class ResponsesRequest:
    """``body`` is the whole request. ``items`` is its input, None where that has no form we know."""

    body: Document
    items: list[Document] | None
    store: bool
    background: bool
    stream: bool
    previous_id: str | None

    @classmethod
    def read(cls, body: Document, *, store: bool) -> "ResponsesRequest":
        """``store`` is what a request without it means. Raises ``BadRequest``."""
        previous = body.get("previous_response_id")
        if previous is not None and not isinstance(previous, str):
            raise BadRequest("'previous_response_id' must be a string.", param="previous_response_id")
        if previous is not None and body.get("conversation") is not None:
            raise BadRequest(
                "'previous_response_id' and 'conversation' cannot be used together.", param="previous_response_id"
            )
        request = cls(
            body,
            items_of(body.get("input")),
            store=_flag(body, "store", store),
            background=_flag(body, "background", False),
            # what only the proxy can do is the proxy's to refuse
            stream=_flag(body, "stream", False, BadRequest if body.get("background") else UnreadableBody),
            previous_id=previous,
        )
        _check_window(request)
        if request.items is None and (request.background or previous is not None):
            raise BadRequest("'input' must be a string or an array of objects.", param="input")
        return request

    @property
    def plain(self) -> bool:
        """Whether nothing of it concerns us: it is answered as by a proxy that keeps no Responses.

        A conversation lives upstream, where there are such; input of another form is the upstream's to refuse.
        """
        if self.body.get("conversation") is not None or self.items is None:
            return True
        return not (self.store or self.background or self.previous_id is not None)

    def effective(self, raw: bytes, before: list[Document]) -> bytes:
        """The body for the model server; ``before`` is the conversation so far. ``raw`` is the request's own body.

        Raises ``BadRequest`` for what is nested too deeply to be written again.
        """
        if not before and not OURS & self.body.keys():
            return raw
        body = self.body | {"input": [*before, *(self.items or ())]} if before else self.body
        return canonical(body, OURS)

    def beside_input(self) -> bytes:
        """The request without its input, JSON: what its answers repeat of it."""
        return canonical(self.body | {"store": self.store}, {"input"})

    def input_json(self) -> bytes:
        """The request's own input items, JSON."""
        return dump(self.items)


def _check_window(request: ResponsesRequest) -> None:
    """A Response of the background is begun as soon as there is a worker for it, which is within every window."""
    options = request.body.get("background_options")
    if options is None:
        return
    if not isinstance(options, dict):
        raise BadRequest("'background_options' must be an object.", param="background_options")
    window = options.get("completion_window")
    if window in _LATER and (request.stream or not request.background):
        raise BadRequest(
            f"The completion window '{window}' needs 'background': true and no stream.",
            param="background_options.completion_window",
        )


def _flag(body: Document, name: str, default: bool, refusal: type[BadRequest] = BadRequest) -> bool:
    value: Any = body.get(name)
    if value is None:
        return default
    if not isinstance(value, bool):
        raise refusal(f"'{name}' must be a boolean.", param=name)
    return value


def unfinished(id: str, created_at: float, status: str, request: Document, error: Document | None = None) -> Document:
    """A Response of the background that is not made yet, or never will be. ``request`` may lack its input."""
    document = {"id": id, "created_at": int(created_at), "status": status, "output": [], "error": error}
    return complete(document, request)


def response_error(error: ProxyError) -> Document:
    """Why a Response failed, with one of the codes that SDKs know."""
    code = "server_error"
    if error.http_status == 429:
        code = "rate_limit_exceeded"
    elif error.http_status in _REFUSED and isinstance(error, UpstreamStatus | BadRequest):
        code = "invalid_prompt"
    return {"code": code, "message": error.message}
