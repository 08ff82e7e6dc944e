"""The forms of an error, one for each family of paths: whoever calls a path reads the errors of its API. Pure."""

from collections.abc import Mapping
from typing import Any, Protocol

from llmproxy.wire.documents import dump
from llmproxy.wire.errors import ProxyError, UpstreamFault, UpstreamStatus

JSON = b"application/json"

#: first segments below ``/api/`` that are the proxy's own; every other path there is Ollama's
_OWN_API = frozenset({"cache", "completions", "health", "history", "performance", "sessions", "tasks", "users"})

#: Anthropic's words for an error, by status (docs.anthropic.com/en/api/errors); below 500 else "invalid_request_error".
_ANTHROPIC_TYPES: Mapping[int, str] = {
    401: "authentication_error",
    402: "billing_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    504: "timeout_error",
    529: "overloaded_error",
}
#: those that say more than the status does
_ANTHROPIC_WORDS = frozenset({*_ANTHROPIC_TYPES.values(), "api_error"})
#: members of OpenAI's error object that Anthropic's has no place for where they say nothing
_OPENAI_ONLY = ("param", "code")


class ErrorDialect(Protocol):
    """The form of one API's errors."""

    def speaks(self, document: Any) -> bool:
        """Whether the JSON of an upstream's error has this form already."""
        ...

    def document(self, error: ProxyError, request_id: str) -> dict[str, Any]:
        """The JSON object that tells of ``error``."""
        ...


class _OpenAI:
    """``{"error": {"message", "type", "param", "code"}}``. Of an upstream's own the message is enough to read it."""

    def speaks(self, document: Any) -> bool:
        error = document.get("error") if isinstance(document, dict) else None
        return isinstance(error, dict) and isinstance(error.get("message"), str) and bool(error["message"])

    def document(self, error: ProxyError, request_id: str) -> dict[str, Any]:
        return dict(error.document())


class _Ollama:
    """``{"error": "text"}``."""

    def speaks(self, document: Any) -> bool:
        return isinstance(document, dict) and isinstance(document.get("error"), str) and bool(document["error"])

    def document(self, error: ProxyError, request_id: str) -> dict[str, Any]:
        return {"error": error.message}


class _Anthropic:
    """``{"type": "error", "error": {"type", "message"}, "request_id"}``."""

    def speaks(self, document: Any) -> bool:
        if not isinstance(document, dict) or document.get("type") != "error":
            return False
        error = document.get("error")
        return isinstance(error, dict) and all(isinstance(error.get(name), str) for name in ("type", "message"))

    def document(self, error: ProxyError, request_id: str) -> dict[str, Any]:
        told = error.document()["error"]
        kind = told["type"] if told["type"] in _ANTHROPIC_WORDS else _anthropic_type(error.http_status)
        further = {name: value for name, value in told.items() if name not in _OPENAI_ONLY or value is not None}
        theirs = error.request_id if isinstance(error, UpstreamFault) else ""
        return {"type": "error", "error": {**further, "type": kind}, "request_id": theirs or request_id or None}


class _Problem:
    """The members of RFC 9457 beside OpenAI's envelope."""

    def speaks(self, document: Any) -> bool:
        return False

    def document(self, error: ProxyError, request_id: str) -> dict[str, Any]:
        kind = error.error_code or "error"
        return {
            **error.document(),
            "type": f"urn:llmproxy:error:{kind}",
            "title": kind.replace("_", " "),
            "status": error.http_status,
            "detail": error.message,
        }


OPENAI_ERRORS: ErrorDialect = _OpenAI()
OLLAMA_ERRORS: ErrorDialect = _Ollama()
ANTHROPIC_ERRORS: ErrorDialect = _Anthropic()
PROBLEMS: ErrorDialect = _Problem()


def error_dialect(path: str) -> ErrorDialect:
    """The dialect of a path's errors; OpenAI's where the path belongs to no API in particular."""
    first, _, rest = path.lstrip("/").partition("/")
    if first == "admin":
        return PROBLEMS
    if first == "api":
        return OPENAI_ERRORS if rest.partition("/")[0] in _OWN_API else OLLAMA_ERRORS
    if first == "v1" and rest.partition("/")[0] == "messages":
        return ANTHROPIC_ERRORS
    return OPENAI_ERRORS


def error_response(error: ProxyError, path: str, request_id: str) -> tuple[bytes, bytes]:
    """Content type and body of the error response. An upstream's own body is kept where it has the path's form."""
    dialect = error_dialect(path)
    if isinstance(error, UpstreamStatus) and dialect.speaks(error.told):
        return error.content_type, error.original
    return JSON, dump(dialect.document(error, request_id))


def told_in(dialect: ErrorDialect, error: ProxyError, request_id: str) -> Mapping[str, Any]:
    """The JSON object that tells of ``error`` inside a stream, every member that the upstream gave in it."""
    if isinstance(error, UpstreamStatus) and dialect.speaks(error.told):
        told: Mapping[str, Any] = error.told
        return told
    return dialect.document(error, request_id)


def _anthropic_type(status: int) -> str:
    return _ANTHROPIC_TYPES.get(status, "invalid_request_error" if status < 500 else "api_error")
