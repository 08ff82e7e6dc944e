"""Calls to the running proxy's own API."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any
from urllib.parse import quote

import httpx

from llmproxy.cli.options import CommandFailed
from llmproxy.config.load import load

Json = dict[str, Any]

_TIMEOUT = 30.0


class Unreachable(CommandFailed):
    """Nobody answered, or the answer broke off."""


class Refused(CommandFailed):
    """The proxy answered with an error; ``status`` is the answer's."""

    def __init__(self, message: str, status: int) -> None:
        super().__init__(message)
        self.status = status


def base(url: str | None) -> str:
    """The proxy at ``url``, which may end in ``/v1``, else the one of this folder's settings. Raises
    ``ConfigError``."""
    return (url or load({}).settings.local_url()).rstrip("/").removesuffix("/v1")


def operator(url: str | None) -> "ApiClient":
    """The proxy at ``url``, else the one of this folder's settings, with the operator's rights. Raises
    ``ConfigError``."""
    settings = load({}).settings
    token = settings.admin_token.get_secret_value() if settings.admin_token else None
    return ApiClient(url or settings.local_url(), token)


def authorization(key: str | None) -> dict[str, str]:
    """Headers that present ``key``, none without one."""
    return {"authorization": f"Bearer {key}"} if key else {}


def http_client(url: str, key: str | None, timeout: float = _TIMEOUT) -> httpx.Client:
    """A client for the paths of the proxy at ``url``; ``timeout`` in seconds."""
    # the proxy is on this machine or named in full: a system-wide HTTP proxy has no say
    return httpx.Client(base_url=url, headers=authorization(key), timeout=timeout, trust_env=False)


class ApiClient:
    """The running proxy at ``url``. Every method raises ``CommandFailed`` if it cannot be reached or refuses."""

    def __init__(self, url: str, token: str | None = None):
        self.url = url.rstrip("/")
        self._token = token

    def health(self) -> Json:
        return self._call("GET", "/health")

    def state(self) -> Json:
        """The state of each part of the program."""
        # a program that is down says so with 503, and how
        return self._call("GET", "/api/health", accepted=503)

    def performance(self, window: str) -> Json:
        """How requests fared within a window such as ``5m``."""
        return self._call("GET", f"/api/performance?window={quote(window)}")

    def history(self, query: Mapping[str, str]) -> Json:
        """A page of exchanges: ``{"data": [...], "next": cursor}``."""
        return self._call("GET", f"/api/history?{httpx.QueryParams(query)}")

    def stats(self) -> Json:
        return self._call("GET", "/api/cache/stats")

    def entry(self, key: str) -> Json:
        return self._call("GET", f"/admin/cache/entries/{quote(key, safe='')}")

    def flush(self, selector: Mapping[str, object]) -> Json:
        """``{"flushed": entries, "bytes": bytes}``."""
        return self._call("POST", "/admin/cache/flush", dict(selector))

    def explain(self, request_id: str) -> Json:
        """Why a request was a hit or not."""
        return self._call("GET", f"/api/history/{quote(request_id, safe='')}/explain")

    def jobs(self, query: Mapping[str, str]) -> Json:
        """A page of the jobs: ``{"data": [...], "next": cursor}``."""
        return self._call("GET", f"/admin/jobs?{httpx.QueryParams(query)}")

    def job(self, id: str, errors: int) -> Json:
        """A job with its first ``errors`` failed calls."""
        return self._call("GET", f"/admin/jobs/{quote(id, safe='')}?errors={errors}")

    def cancel_job(self, id: str) -> Json:
        return self._call("POST", f"/admin/jobs/{quote(id, safe='')}/cancel")

    def retry_job(self, id: str) -> Json:
        return self._call("POST", f"/admin/jobs/{quote(id, safe='')}/retry")

    def _call(self, method: str, path: str, body: Json | None = None, accepted: int = 200) -> Json:
        with reaching(self.url), http_client(self.url, self._token) as http:
            response = http.request(method, path, json=body)
        return document(response, accepted)


@contextmanager
def reaching(url: str) -> Iterator[None]:
    """Raises ``Unreachable`` for whatever keeps the proxy at ``url`` from answering."""
    try:
        yield
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        reason = str(error) or type(error).__name__
        raise Unreachable(f"no answer from {url} ({reason}): is `llmproxy serve` running there?") from error


@contextmanager
def understanding() -> Iterator[None]:
    """Raises ``CommandFailed`` if a document of the proxy's does not have the form that is read here."""
    try:
        yield
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise CommandFailed("the proxy's answer is not understood; is it of this version? --json prints it") from error


def document(response: httpx.Response, accepted: int = 200) -> Json:
    """The JSON object of an answer that was read. Raises ``Refused`` for an error, but of the status ``accepted``, else
    ``CommandFailed``."""
    try:
        found = response.json()
    except ValueError:
        found = None
    if not isinstance(found, dict):
        raise CommandFailed(f"{response.url} answered {response.status_code}, but not as llmproxy would")
    if response.is_error and response.status_code != accepted:
        error = found.get("error")
        message = error.get("message") if isinstance(error, dict) else found.get("detail")
        message = f"{response.url} answered {response.status_code}: {message or 'no reason given'}"
        raise Refused(message, response.status_code)
    return found
