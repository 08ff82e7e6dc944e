"""One line of a batch's input file: the request in it, or what is wrong with it. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import orjson

from llmproxy.wire import validation
from llmproxy.wire.errors import BadRequest
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
class Request:
    """``body`` is JSON; ``inputs`` is how many texts it wants embedded."""

    custom_id: str
    model: str
    body: bytes
    inputs: int = 0


def read_line(line: bytes, endpoint: str, most_bytes: int) -> Request:
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
        written = orjson.dumps(body)
    except orjson.JSONEncodeError as error:
        raise _unparseable() from error
    return Request(custom_id, model, written, len(inputs_of(body)) if endpoint == "/v1/embeddings" else 0)


def _members(line: bytes) -> dict[str, Any]:
    try:
        return parse(line)
    except BadRequest as error:
        raise _unparseable() from error


def _unparseable() -> BadRequest:
    return BadRequest("This line is not parseable as valid JSON.", code="invalid_json_line")


def _required(members: Mapping[str, Any], name: str, kind: type, called: str) -> Any:
    value = members.get(name)
    if value is None:
        raise validation.missing(name)
    if not isinstance(value, kind):
        raise validation.wrong_type(name, called, value)
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
    needed = ENDPOINTS[endpoint]
    if body.get(needed) is None:
        raise _lacking(needed)
    if body.get("stream") not in (None, False):
        message = "Streaming is not supported in batches."
        raise BadRequest(message, code="streaming_unsupported", param="body.stream")
    return model


def unknown_model(model: str) -> BadRequest:
    message = f"The model {model[:200]!r} does not exist."
    return BadRequest(message, code="model_not_found", param="body.model")


def _lacking(name: str) -> BadRequest:
    return BadRequest(f"{name.capitalize()} parameter is required.", code="invalid_request", param=f"body.{name}")
