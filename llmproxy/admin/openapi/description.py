"""The description of the whole API as an OpenAPI 3.1 document, made from the table of routes."""

import inspect
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from llmproxy import __version__
from llmproxy.admin.openapi.cached import HEADERS, cached_operations
from llmproxy.admin.openapi.components import schemas
from llmproxy.admin.openapi.json_schema import TEXT, Schema, ref
from llmproxy.admin.openapi.operation import JSON, Operation
from llmproxy.admin.openapi.operations import OPERATIONS
from llmproxy.middleware.routing import AccessLevel, RouteGroup
from llmproxy.wire.errors import ANTHROPIC_ERRORS, OLLAMA_ERRORS, OPENAI_ERRORS, PROBLEMS, ErrorDialect, error_dialect

Document = dict[str, Any]

_ABOUT = """\
A caching proxy for local models. This describes its own API and the endpoints whose answers it caches. Every other \
path goes to the model server as it is.

Most paths below `/v1` work without that prefix, too. Errors have the form of the API that the path belongs to."""

_TAGS = {
    "cached endpoints": "answered from the cache, or by a model server",
    "stored answers": "Responses and chat completions by their id",
    "files and batches": "OpenAI's Files and Batches",
    "tasks": "prompts answered now or later",
    "cache": "what is stored, and how to remove it",
    "history": "every request that was answered",
    "jobs": "background work of every caller",
    "status": "health, figures and models",
}
_SECURITY: Mapping[AccessLevel, list[Document]] = {
    AccessLevel.OPEN: [{}],
    AccessLevel.CALLER: [{}, {"apiKey": []}],
    AccessLevel.OPERATOR: [{}, {"adminToken": []}],
}
_SCHEMES = {
    "apiKey": {"type": "http", "scheme": "bearer", "description": "one of `LLMPROXY_API_KEYS`, if there are any"},
    "adminToken": {"type": "http", "scheme": "bearer", "description": "`LLMPROXY_ADMIN_TOKEN`, if it is set"},
}
_ERRORS: Mapping[ErrorDialect, str] = {
    OPENAI_ERRORS: "Error",
    OLLAMA_ERRORS: "OllamaError",
    ANTHROPIC_ERRORS: "AnthropicError",
    PROBLEMS: "Problem",
}
#: where people look at pages: they are no part of the API
_PAGES = re.compile(r"/(|ui|ui/.*|docs|docs/.*|openapi\.json)")
_CONVERTER = re.compile(r"{(\w+):\w+}")


def describe(groups: Iterable[RouteGroup]) -> Document:
    """The document for these routes and the cached endpoints. Takes some milliseconds."""
    paths: dict[str, Document] = {}
    for path, operation in cached_operations():
        paths.setdefault(path, {})["post"] = _operation("POST", path, operation, AccessLevel.CALLER)
    for method, path, access, endpoint in _routes(groups):
        operation = OPERATIONS.get(f"{method} {path}") or Operation(_sentence(endpoint))
        paths.setdefault(path, {})[method.lower()] = _operation(method, path, operation, access)
    return {
        "openapi": "3.1.0",
        "info": {"title": "llmproxy", "version": __version__, "description": _ABOUT},
        # beside this document, also below a path of another site
        "servers": [{"url": "."}],
        "tags": [{"name": name, "description": text} for name, text in _TAGS.items()],
        "paths": dict(sorted(paths.items())),
        "components": {"schemas": schemas(), "securitySchemes": _SCHEMES},
    }


def _routes(groups: Iterable[RouteGroup]) -> Iterator[tuple[str, str, AccessLevel, object]]:
    """Method, path, access level and application of each route that is described. Of a path that is there with ``/v1``
    and without, the former."""
    listed = [(_CONVERTER.sub(r"{\1}", route.path), group.access, route) for group in groups for route in group.routes]
    known = {path for path, _, _ in listed}
    for path, access, route in listed:
        if _PAGES.fullmatch(path) or f"/v1{path}" in known:
            continue
        for method in sorted(route.methods or {"GET"}):
            if method != "HEAD":
                yield method, path, access, route.endpoint


def _sentence(endpoint: object) -> str:
    """The first sentence that the code says of itself."""
    return (inspect.getdoc(endpoint) or "").split("\n\n")[0].replace("\n", " ").replace("``", "`")


def _operation(method: str, path: str, operation: Operation, access: AccessLevel) -> Document:
    is_cached = operation.tag == "cached endpoints"
    success: Document = {
        "description": "Success",
        "content": {kind: {"schema": schema} for kind, schema in operation.answers.items()},
    }
    if is_cached:
        success["headers"] = {name: {"schema": schema} for name, schema in HEADERS.items()}
    error = _ERRORS[error_dialect(path)]
    described: Document = {
        "operationId": re.sub(r"\W+", "_", f"{method.lower()}{path}").strip("_"),
        "summary": operation.summary,
        "tags": [operation.tag],
        "parameters": list(_parameters(path, operation)),
        "responses": {
            str(operation.status): success,
            "default": {"description": "An error", "content": {JSON: {"schema": ref(error)}}},
        },
        "security": _SECURITY[access],
    }
    if operation.description:
        described["description"] = operation.description
    if operation.body is not None:
        content = {operation.body_type: {"schema": operation.body}}
        described["requestBody"] = {"required": True, "content": content}
    return described


def _parameters(path: str, operation: Operation) -> Iterator[Document]:
    for name in re.findall(r"{(\w+)}", path):
        yield {"name": name, "in": "path", "required": True, "schema": operation.path.get(name, TEXT)}
    for place, parameters in (("query", operation.query), ("header", operation.headers)):
        for name, schema in parameters.items():
            yield _parameter(name, place, schema)


def _parameter(name: str, place: str, schema: Schema) -> Document:
    plain = {key: value for key, value in schema.items() if key not in ("description", "example")}
    told = {key: value for key, value in schema.items() if key in ("description", "example")}
    return {"name": name, "in": place, "schema": plain, **told}
