"""Which URLs a webhook may have. Pure.

A stranger's URL is fetched from inside the operator's network. So it is read by one narrow grammar, in which every
parser sees the same host: no credentials, no backslashes, nothing but ASCII. The host is compared as text, and what
is not on the operator's list is refused.
"""

import ipaddress
import re
from collections.abc import Iterable

from llmproxy.config.settings import Settings
from llmproxy.wire.errors import BadRequest

LONGEST_URL = 2048
PARAM = "webhook_url"

_HOST = r"(?P<host>\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+)(?::(?P<port>[0-9]{1,5}))?"
_URL = re.compile(rf"(?P<scheme>[Hh][Tt][Tt][Pp][Ss]?)://{_HOST}(?:[/?][!-~]*)?")
_ENTRY = re.compile(_HOST)
_DEFAULT_PORTS = {"http": 80, "https": 443}

#: name or address, and port
HostPort = tuple[str, int]


def webhook_url_for(requested: str, settings: Settings) -> str:
    """Returns the URL of a new job's webhook, "" for none: the request's own, else that of the settings.

    Raises ``BadRequest`` for one that a request must not name.
    """
    if not requested:
        return settings.webhook_url
    reason = refusal(requested, settings.webhook_hosts)
    if reason:
        raise BadRequest(f"'{PARAM}' {reason}.", param=PARAM)
    return requested


def refusal(url: str, hosts: Iterable[str]) -> str:
    """Says why a webhook must not have this URL, "" if it may. Each of ``hosts`` is ``host:port``, or ``host`` for the
    default port."""
    parts = _URL.fullmatch(url)
    if len(url) > LONGEST_URL or parts is None or "#" in url or "\\" in url:
        return (
            f"must be an http:// or https:// URL in ASCII, without credentials and fragment, "
            f"of up to {LONGEST_URL} characters"
        )
    default_port = _DEFAULT_PORTS[parts["scheme"].lower()]
    host_port = _host_port(parts, default_port)
    if host_port is None:
        return "names a host or port that cannot be"
    if host_port in (_entry(host, default_port) for host in hosts):
        return ""
    host, port = host_port
    return f"names the host {host}:{port}, which is not one of those in LLMPROXY_WEBHOOK_HOSTS"


def _entry(text: str, default_port: int) -> HostPort | None:
    """A host of the settings, None for one that is written so that it cannot be any."""
    if text.count(":") > 1 and not text.startswith("["):
        text = f"[{text}]"
    parts = _ENTRY.fullmatch(text)
    return None if parts is None else _host_port(parts, default_port)


def _host_port(parts: re.Match[str], default_port: int) -> HostPort | None:
    port = default_port if parts["port"] is None else int(parts["port"])
    host = parts["host"].lower()
    if host.startswith("["):
        try:
            host = f"[{ipaddress.IPv6Address(host[1:-1])}]"
        except ValueError:
            return None
    else:
        # the root of the name system: with and without it the name is the same
        host = host.removesuffix(".")
    return (host, port) if host and 0 < port < 65536 else None
