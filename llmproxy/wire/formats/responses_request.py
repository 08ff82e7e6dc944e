"""A request for a Response: its input items, the conversation before them, and what is left for the model server.

Model servers know no ``previous_response_id``: they get the whole conversation as input items, each time.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from llmproxy.wire.documents import Document, dump
from llmproxy.wire.errors import BadRequest, ProxyError, UnreadableBody, UpstreamStatus
from llmproxy.wire.formats.responses import complete
from llmproxy.wire.json_body import canonical

#: how ids of items begin, by type
_PREFIXES = {"message": "msg", "function_call": "fc", "function_call_output": "fco", "reasoning": "rs"}

#: members of a reasoning item that hold its text
_THOUGHTS = ("content", "summary", "encrypted_content")


def items_of(value: Any) -> list[Document] | None:
    """A request's ``input`` as items, with a string as the message that it stands for; None for anything else."""
    if value is None:
        return []
    if isinstance(value, str):
        return [{"type": "message", "role": "user", "content": [{"type": "input_text", "text": value}]}]
    if isinstance(value, list) and all(isinstance(item, dict) for item in value):
        return value
    return None


def history(turns: Iterable[tuple[list[Document], list[Document]]]) -> list[Document]:
    """The items of a conversation's turns (input, output), oldest first.

    Ids of output items are made from their places: the same conversation, held again, is the same request.
    """
    items: list[Document] = []
    for turn_input, output in turns:
        items += turn_input
        for item in output:
            if not _is_empty(item):
                items.append(_as_input(item, len(items)))
    return items


def _is_empty(item: Document) -> bool:
    """Whether nothing of a reasoning item is left to read; llama.cpp refuses such an item."""
    return item.get("type") == "reasoning" and not any(item.get(name) for name in _THOUGHTS)


def _as_input(item: Document, place: int) -> Document:
    """An output item as input: with an id and ``annotations``, which are required there, and without ``logprobs``."""
    converted = dict(item)
    prefix = _PREFIXES.get(str(item.get("type")))
    if prefix is not None:
        converted["id"] = f"{prefix}_{place}"
    content = item.get("content")
    if isinstance(content, list):
        converted["content"] = [_without_logprobs(part) for part in content]
    return converted


def _without_logprobs(part: Any) -> Any:
    return {name: value for name, value in part.items() if name != "logprobs"} if isinstance(part, dict) else part


def listed_items(items: Iterable[Document], response_id: str) -> list[Document]:
    """A request's items with the members that a list of them must have.

    A missing id is made from the Response's id and the place.
    """
    stem = response_id.removeprefix("resp_")
    return [_listed_item(item, f"{stem}_{place}") for place, item in enumerate(items)]


def _listed_item(item: Document, name: str) -> Document:
    kind = item.get("type") or "message"
    whole: Document = {"id": f"{_PREFIXES.get(str(kind), 'item')}_in_{name}", "type": kind}
    if kind == "message":
        whole["status"] = "completed"
    whole |= {member: value for member, value in item.items() if value is not None}
    if kind == "message" and isinstance(text := item.get("content"), str):
        part: Document = {"type": "input_text", "text": text}
        if item.get("role") == "assistant":
            part = {"type": "output_text", "text": text, "annotations": []}
        whole["content"] = [part]
    return whole


#: windows of ``background_options`` in which nobody waits for the answer
_LATER = ("2h", "8h")

#: statuses that blame the request
_REFUSED = frozenset({400, 413, 422})

#: members that speak to us; model servers refuse them or take them for something else
OURS = frozenset({"store", "background", "background_options", "previous_response_id"})


@dataclass(frozen=True, slots=True)
class ResponsesRequest:
    """``body`` is the whole request. ``items`` is its input, None for an unknown form."""

    body: Document
    items: list[Document] | None
    store: bool
    background: bool
    stream: bool
    previous_id: str | None

    @classmethod
    def read(cls, body: Document, *, store: bool) -> "ResponsesRequest":
        """``store`` is the value for a request that does not say it. Raises ``BadRequest``."""
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
            # background is the proxy's own feature, so the proxy refuses what is wrong with it
            stream=_flag(body, "stream", False, BadRequest if body.get("background") else UnreadableBody),
            previous_id=previous,
        )
        _check_window(request)
        if request.items is None and (request.background or previous is not None):
            raise BadRequest("'input' must be a string or an array of objects.", param="input")
        return request

    @property
    def plain(self) -> bool:
        """Whether the proxy has nothing to keep for it: it is answered as by a proxy without stored Responses.

        A conversation lives upstream, if anywhere; input of an unknown form is the upstream's to refuse.
        """
        if self.body.get("conversation") is not None or self.items is None:
            return True
        return not (self.store or self.background or self.previous_id is not None)

    def effective(self, raw: bytes, before: list[Document]) -> bytes:
        """The body for the model server; ``before`` is the conversation so far, ``raw`` the request's own body.

        Raises ``BadRequest`` for a body that is nested too deeply to be written again.
        """
        if not before and not OURS & self.body.keys():
            return raw
        body = self.body | {"input": [*before, *(self.items or ())]} if before else self.body
        return canonical(body, OURS)

    def without_input(self) -> bytes:
        """The request without its input, as JSON: the members that its answers repeat."""
        return canonical(self.body | {"store": self.store}, {"input"})

    def input_json(self) -> bytes:
        """The request's own input items, as JSON."""
        return dump(self.items)


def _check_window(request: ResponsesRequest) -> None:
    """Raises ``BadRequest`` for a completion window that does not fit the request.

    A worker begins a background Response as soon as it is free, which is within every window.
    """
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
    """A background Response that is not finished, or never will be. ``request`` may lack its input."""
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
