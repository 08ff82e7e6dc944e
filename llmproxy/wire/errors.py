"""Every error the proxy gives, and the form of its response: one for each family of paths.

ProxyError
├── ClientError              the caller's mistake
│   ├── BadRequest      400  a bad directive, a value that is not allowed
│   │   └── UnreadableBody   no JSON object that a key can be made of
│   ├── Unauthorized    401
│   ├── Forbidden       403  a foreign Host or Origin, a missing admin token
│   ├── NotFound        404
│   ├── MethodNotAllowed 405
│   ├── TooSlow         408  a request that does not come on
│   ├── Conflict        409  not in the state that the request needs
│   ├── TooLarge        413
│   ├── Unsupported     415  a Content-Encoding that is not understood
│   ├── TooMany         429
│   └── HeaderTooLarge  431
├── UpstreamError            the model server's
│   ├── UpstreamRefused 502  no connection, or it broke off
│   ├── UpstreamBroke   502  the answer ended before it was complete
│   │   └── UpstreamFault --  the answer is an error, or one ended it: what it says is kept
│   ├── UpstreamSlow    504
│   ├── UpstreamLoading 503
│   └── UpstreamStatus   --  it answered with an error of its own: status and message are kept
├── OnlyIfCached        504  the request forbade going upstream
├── NotImplementedHere  501  a WebSocket upgrade
├── Unavailable         503  a database or a store of files that cannot be used now
└── InternalError       500
"""

from collections.abc import Mapping
from typing import Any, ClassVar, Protocol

import orjson

from llmproxy.wire.documents import dump, error_message

Headers = tuple[tuple[bytes, bytes], ...]


def envelope(message: str, type: str, code: str | None = None, param: str | None = None) -> dict[str, Any]:
    """OpenAI's error object: all four keys, always (openai-openapi ``Error``)."""
    return {"error": {"message": message, "type": type, "param": param, "code": code}}


class ProxyError(Exception):
    """An error with everything needed to answer with it.

    ``status`` is the HTTP status, ``headers`` are extra response headers (lower-case names).
    """

    status: ClassVar[int] = 500
    type: ClassVar[str] = "server_error"
    code: ClassVar[str | None] = None

    def __init__(self, message: str, *, code: str | None = None, param: str | None = None, headers: Headers = ()):
        super().__init__(message)
        self.message = message
        self.error_code = code if code is not None else self.code
        self.param = param
        self.headers = headers

    @property
    def http_status(self) -> int:
        return self.status

    def document(self) -> Mapping[str, Any]:
        """The JSON document of the error response."""
        return envelope(self.message, self.type, self.error_code, self.param)

    def body(self) -> bytes:
        """The bytes of the error response, JSON in UTF-8."""
        return orjson.dumps(self.document())


class ClientError(ProxyError):
    status = 400
    type = "invalid_request_error"


class BadRequest(ClientError):
    pass


class UnreadableBody(BadRequest):
    """The proxy can make no key of the body. A model server may be able to read it all the same."""


class Unauthorized(ClientError):
    status = 401
    code = "invalid_api_key"


class Forbidden(ClientError):
    status = 403
    code = "forbidden"


class NotFound(ClientError):
    status = 404
    code = "not_found"


class MethodNotAllowed(ClientError):
    status = 405
    code = "method_not_allowed"


class TooSlow(ClientError):
    """The connection is closed: the rest of such a request may still come, and must not be taken for another one."""

    status = 408
    code = "request_timeout"

    def __init__(self, message: str):
        super().__init__(message, headers=((b"connection", b"close"),))


class Conflict(ClientError):
    """Waiting does not change the state. SDKs would repeat a 409, so ``x-should-retry`` says no."""

    status = 409
    code = "conflict"

    def __init__(self, message: str, *, code: str | None = None, param: str | None = None, headers: Headers = ()):
        super().__init__(message, code=code, param=param, headers=((b"x-should-retry", b"false"), *headers))


class TooLarge(ClientError):
    status = 413
    code = "request_too_large"


class Unsupported(ClientError):
    status = 415
    code = "unsupported_content_encoding"


class TooMany(ClientError):
    status = 429
    type = "rate_limit_error"
    code = "rate_limit_exceeded"


class HeaderTooLarge(ClientError):
    status = 431
    code = "request_header_fields_too_large"


class UpstreamError(ProxyError):
    status = 502
    code = "upstream_error"


class UpstreamRefused(UpstreamError):
    code = "upstream_unreachable"


class UpstreamBroke(UpstreamError):
    code = "upstream_error"


class UpstreamFault(UpstreamBroke):
    """An error that the upstream sent in place of an answer. ``error`` is an object or a text.

    ``frame`` is the event that reports it inside a stream, empty if there was none. ``request_id`` is the upstream's id
    of the request, empty if the upstream gave none.
    """

    def __init__(self, error: Any, frame: bytes = b"", request_id: str = ""):
        super().__init__(error_message(error))
        self.frame = frame
        self.request_id = request_id
        self._members = error if isinstance(error, dict) else {}

    def document(self) -> Mapping[str, Any]:
        """The error with every member that the upstream sent: type, code (a number too), and all others."""
        # a code of ours beside a type of theirs would be taken for theirs
        code = None if "type" in self._members else self.error_code
        error: dict[str, Any] = envelope(self.message, self.type, code)["error"]
        members = {name: value for name, value in self._members.items() if value is not None and name != "message"}
        return {"error": error | members}

    def body(self) -> bytes:
        return dump(self.document())


class UpstreamSlow(UpstreamError):
    status = 504
    type = "timeout_error"
    code = "upstream_timeout"


class UpstreamLoading(UpstreamError):
    status = 503
    code = "upstream_loading"


class UpstreamStatus(UpstreamError):
    """The upstream's own error: its status, its message in OpenAI's envelope, and its body unchanged.

    ``decoded`` is the JSON value of ``original``, or its text if it is not JSON.
    """

    def __init__(
        self,
        upstream_status: int,
        document: Mapping[str, Any],
        headers: Headers = (),
        *,
        decoded: Any = None,
        original: bytes = b"",
        content_type: bytes = b"application/json",
    ):
        error = document["error"]
        super().__init__(error["message"], headers=headers)
        self.upstream_status = upstream_status
        self.decoded = decoded
        self.original = original
        self.content_type = content_type
        self._document = document

    @property
    def http_status(self) -> int:
        return self.upstream_status

    def document(self) -> Mapping[str, Any]:
        return self._document


class OnlyIfCached(ProxyError):
    """RFC 9111 section 5.2.1.7."""

    status = 504
    type = "invalid_request_error"
    code = "only_if_cached"


class NotImplementedHere(ProxyError):
    status = 501
    type = "invalid_request_error"
    code = "not_implemented"


class Unavailable(ProxyError):
    status = 503
    code = "store_unavailable"


class InternalError(ProxyError):
    code = "internal_error"


JSON = b"application/json"

#: first segments below ``/api/`` that are the proxy's own; every other path there is Ollama's
OWN_API = frozenset({"cache", "completions", "health", "history", "performance", "sessions", "tasks", "users"})

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
_ANTHROPIC_NAMES = frozenset({*_ANTHROPIC_TYPES.values(), "api_error"})
#: members of OpenAI's error object that Anthropic's does not have: left out if they are null
_OPENAI_ONLY = ("param", "code")


class ErrorDialect(Protocol):
    """The form of one API's errors."""

    def speaks(self, document: Any) -> bool:
        """Whether the JSON of an upstream's error has this form already."""
        ...

    def document(self, error: ProxyError, request_id: str) -> dict[str, Any]:
        """The JSON object that reports ``error``."""
        ...


class _OpenAI:
    """``{"error": {"message", "type", "param", "code"}}``. The message alone makes an upstream's error readable."""

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
        details = error.document()["error"]
        kind = details["type"] if details["type"] in _ANTHROPIC_NAMES else _anthropic_type(error.http_status)
        members = {name: value for name, value in details.items() if name not in _OPENAI_ONLY or value is not None}
        theirs = error.request_id if isinstance(error, UpstreamFault) else ""
        return {"type": "error", "error": {**members, "type": kind}, "request_id": theirs or request_id or None}


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
    """The dialect of a path's errors; OpenAI's for a path that belongs to no particular API."""
    first, _, rest = path.lstrip("/").partition("/")
    if first == "admin":
        return PROBLEMS
    if first == "api":
        return OPENAI_ERRORS if rest.partition("/")[0] in OWN_API else OLLAMA_ERRORS
    if first == "v1" and rest.partition("/")[0] == "messages":
        return ANTHROPIC_ERRORS
    return OPENAI_ERRORS


def error_response(error: ProxyError, path: str, request_id: str) -> tuple[bytes, bytes]:
    """Content type and body of the error response. An upstream's own body is kept if it has the path's form."""
    dialect = error_dialect(path)
    if isinstance(error, UpstreamStatus) and dialect.speaks(error.decoded):
        return error.content_type, error.original
    return JSON, dump(dialect.document(error, request_id))


def error_document(dialect: ErrorDialect, error: ProxyError, request_id: str) -> Mapping[str, Any]:
    """The JSON object that reports ``error`` inside a stream, with every member that the upstream sent."""
    if isinstance(error, UpstreamStatus) and dialect.speaks(error.decoded):
        decoded: Mapping[str, Any] = error.decoded
        return decoded
    return dialect.document(error, request_id)


def _anthropic_type(status: int) -> str:
    return _ANTHROPIC_TYPES.get(status, "invalid_request_error" if status < 500 else "api_error")
