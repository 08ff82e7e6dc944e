"""Calls to the running proxy's own API."""

from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

import httpx

from llmproxy.cli.failure import Failure
from llmproxy.config.settings import Settings

Json = dict[str, Any]

_TIMEOUT = 30.0


def address(settings: Settings) -> str:
    """The URL at which a proxy with these settings is reached from this machine."""
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(settings.host, settings.host)
    return f"http://[{host}]:{settings.port}" if ":" in host else f"http://{host}:{settings.port}"


class Client:
    """The running proxy at ``url``. Every method raises ``Failure`` where it cannot be reached or refuses."""

    def __init__(self, url: str, token: str | None = None):
        self._url = url.rstrip("/")
        self._headers = {"authorization": f"Bearer {token}"} if token else {}

    def health(self) -> Json:
        return self._call("GET", "/health")

    def stats(self) -> Json:
        return self._call("GET", "/api/cache/stats")

    def entry(self, key: str) -> Json:
        return self._call("GET", f"/admin/cache/entries/{quote(key, safe='')}")

    def flush(self, selector: Mapping[str, object]) -> Json:
        """``{"flushed": entries, "bytes": bytes}``."""
        return self._call("POST", "/admin/cache/flush", dict(selector))

    def _call(self, method: str, path: str, body: Json | None = None) -> Json:
        try:
            # the proxy is on this machine or named in full: a system-wide HTTP proxy has no say
            with httpx.Client(trust_env=False, timeout=_TIMEOUT) as http:
                response = http.request(method, self._url + path, headers=self._headers, json=body)
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            reason = str(error) or type(error).__name__
            raise Failure(f"no answer from {self._url} ({reason}): is `llmproxy serve` running there?") from error
        return _document(response)


def _document(response: httpx.Response) -> Json:
    try:
        document = response.json()
    except ValueError:
        document = None
    if not isinstance(document, dict):
        raise Failure(f"{response.url} answered {response.status_code}, but not as llmproxy would")
    if response.is_error:
        error = document.get("error")
        message = error.get("message") if isinstance(error, dict) else document.get("detail")
        raise Failure(f"{response.url} answered {response.status_code}: {message or 'no reason given'}")
    return document
