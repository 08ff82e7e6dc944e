"""The bodies that model servers put into their error responses, by shape. Each names the status it came with."""

import json
from collections.abc import Callable

Shape = Callable[[int], tuple[str, bytes]]


def _json(document: object) -> tuple[str, bytes]:
    return "application/json; charset=utf-8", json.dumps(document).encode()


def openai(status: int) -> tuple[str, bytes]:
    error = {
        "message": f"refused with {status}",
        "type": "invalid_request_error",
        "param": "messages",
        "code": "some_code",
    }
    return _json({"error": error})


def llamacpp(status: int) -> tuple[str, bytes]:
    """The code is a number and there is no ``param``."""
    return _json({"error": {"code": status, "message": f"refused with {status}", "type": "invalid_request_error"}})


def llamacpp_loading(status: int) -> tuple[str, bytes]:
    return _json({"error": {"message": "Loading model", "type": "unavailable_error", "code": status}})


def llamacpp_context(status: int) -> tuple[str, bytes]:
    error = {
        "code": status,
        "message": "request (3031 tokens) exceeds the available context size (1024 tokens)",
    }
    return _json({"error": error | {"type": "exceed_context_size_error", "n_prompt_tokens": 3031, "n_ctx": 1024}})


def llamacpp_image(status: int) -> tuple[str, bytes]:
    return _json({"error": {"code": status, "message": "image input is not supported", "type": "server_error"}})


def ollama(status: int) -> tuple[str, bytes]:
    return _json({"error": f"refused with {status}"})


def anthropic(status: int) -> tuple[str, bytes]:
    error = {"type": "invalid_request_error", "message": f"refused with {status}"}
    return _json({"type": "error", "error": error, "request_id": "req_1"})


def overloaded(status: int) -> tuple[str, bytes]:
    """Anthropic's without an id."""
    return _json({"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}})


def openrouter(status: int) -> tuple[str, bytes]:
    """The code is a number, and the cause is beside it."""
    error = {"message": f"refused with {status}", "code": status, "metadata": {"provider_name": "P", "raw": "..."}}
    return _json({"error": error, "user_id": "u"})


def fastapi(status: int) -> tuple[str, bytes]:
    return _json({"detail": f"refused with {status}"})


def array(status: int) -> tuple[str, bytes]:
    return _json([f"refused with {status}"])


def text(status: int) -> tuple[str, bytes]:
    return "text/plain", f"refused with {status}".encode()


def html(status: int) -> tuple[str, bytes]:
    return (
        "text/html",
        f"<html><head><title>{status}</title></head><body>refused with {status}</body></html>".encode(),
    )


def empty(status: int) -> tuple[str, bytes]:
    return "application/json", b""


def not_text(status: int) -> tuple[str, bytes]:
    return "application/octet-stream", b"\xff\xfe\x00" + str(status).encode()


SHAPES: dict[str, Shape] = {
    "openai": openai,
    "llamacpp": llamacpp,
    "llamacpp-loading": llamacpp_loading,
    "llamacpp-context": llamacpp_context,
    "llamacpp-image": llamacpp_image,
    "ollama": ollama,
    "anthropic": anthropic,
    "overloaded": overloaded,
    "openrouter": openrouter,
    "fastapi": fastapi,
    "array": array,
    "text": text,
    "html": html,
    "empty": empty,
    "not-text": not_text,
}
