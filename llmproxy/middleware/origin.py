"""A web page must not reach a local proxy by DNS rebinding or a form.

A request is refused when it is addressed to a host that is neither a loopback name, nor the address at which it
arrived, nor an allowed name, or when a browser says that it comes from another site. Programs send neither ``Origin``
nor ``Sec-Fetch-Site``. Behind a reverse proxy a page has another host than the request arrives with: it is the one
that a trusted proxy names, or one of the allowed names.
"""

import ipaddress
from functools import partial

from starlette.datastructures import Headers
from starlette.middleware.cors import CORSMiddleware
from starlette.responses import Response
from starlette.types import Scope, Send

from llmproxy.config.settings import Settings
from llmproxy.wire.errors import BadRequest, Forbidden

#: values of ``Sec-Fetch-Site``
_FOREIGN = frozenset({b"cross-site", b"same-site"})


class OriginCheck:
    """Refuses requests that a web page of another site may have made."""

    def __init__(self, settings: Settings) -> None:
        self._hosts = frozenset(host.lower() for host in settings.allowed_hosts)
        self._proxies = [ipaddress.ip_network(each) for each in settings.trusted_proxies]
        self._origins = frozenset(settings.cors_origins)

    def check(self, scope: Scope) -> None:
        """Raises ``Forbidden``, ``BadRequest``."""
        hosts: list[bytes] = []
        origins: list[bytes] = []
        sites: list[bytes] = []
        forwarded: list[bytes] = []
        for name, value in scope["headers"]:
            if name == b"host":
                hosts.append(value)
            elif name == b"origin":
                origins.append(value)
            elif name == b"sec-fetch-site":
                sites.append(value)
            elif name == b"x-forwarded-host":
                forwarded.append(value)
        if len(hosts) > 1:
            # RFC 9112 section 3.2: which of them counts is anybody's guess
            raise BadRequest("More than one Host header was sent.")
        host = b"".join(hosts).decode("latin-1")
        self._check_host(host, (scope.get("server") or ("",))[0])
        if origins or sites:
            here = {host.lower()}
            if forwarded and self._is_trusted((scope.get("client") or ("",))[0]):
                # the nearest proxy's word is the last one
                here.add(forwarded[-1].decode("latin-1").rpartition(",")[2].strip().lower())
            # if there are several, each counts
            for origin in origins or [b""]:
                self._check_origin(here, origin.decode("latin-1"), sites)

    def _check_host(self, host: str, address: str) -> None:
        name = hostname(host)
        if "*" not in self._hosts and name not in self._hosts and name != address and not is_loopback(name):
            raise Forbidden(
                f"Requests to the host name {name[:100]!r} are refused: a web page could have made it point here. "
                f"Allow it with LLMPROXY_ALLOWED_HOSTS={name[:100]}."
            )

    def _check_origin(self, here: set[str], origin: str, sites: list[bytes]) -> None:
        if origin in self._origins or "*" in self._origins:
            return
        place = origin.partition("://")[2].lower()
        foreign = bool(origin) and (origin == "null" or (place not in here and hostname(place) not in self._hosts))
        if foreign or not _FOREIGN.isdisjoint(sites):
            raise Forbidden(
                f"Requests from web pages of another site ({origin[:100] or 'unnamed'}) are refused. If it is this "
                "proxy's own page behind another server, name its host in LLMPROXY_ALLOWED_HOSTS; other pages are "
                "allowed with LLMPROXY_CORS_ORIGINS."
            )

    def _is_trusted(self, client: str) -> bool:
        try:
            address = ipaddress.ip_address(client)
        except ValueError:
            return False
        return any(address in network for network in self._proxies)


def hostname(host: str) -> str:
    """The name without the port, an IPv6 address without its brackets."""
    if host.startswith("["):
        name, _, port = host[1:].partition("]")
        return name if port == "" or (port[0] == ":" and port[1:].isdigit()) else host
    return host.rpartition(":")[0].lower() if ":" in host else host.lower()


def is_loopback(name: str) -> bool:
    """Whether a host name or address is a loopback one."""
    if name == "localhost" or name.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False


_METHODS = ("GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS")
#: what a page may read of a response
_EXPOSED = ("x-request-id", "x-cache", "cache-status", "age", "server-timing", "retry-after", "retry-after-ms")


class Cors:
    """Starlette's rules for pages of allowed origins, with our error for a preflight that is refused."""

    def __init__(self, settings: Settings) -> None:
        # its methods are called one by one: the application in it is never reached
        self._rules = CORSMiddleware(
            Response(),
            allow_origins=settings.cors_origins,
            allow_methods=_METHODS,
            allow_headers=["*"],
            expose_headers=_EXPOSED,
            max_age=600,
        )

    def preflight(self, scope: Scope) -> Response | None:
        """The answer to a preflight, which never reaches the upstream; None for another request. Raises
        ``Forbidden``."""
        headers = Headers(scope=scope)
        asks = "origin" in headers and "access-control-request-method" in headers
        if scope["method"] != "OPTIONS" or not asks:
            return None
        response = self._rules.preflight_response(request_headers=headers)
        if response.status_code >= 400:
            raise Forbidden("This origin may not call the proxy. Allow it with LLMPROXY_CORS_ORIGINS.")
        return response

    def around(self, send: Send, scope: Scope) -> Send:
        """``send``, with what lets a page of an allowed origin read the response."""
        return partial(self._rules.send, send=send, request_headers=Headers(scope=scope))
