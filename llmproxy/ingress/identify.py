"""Phase ``identify``: who asks. The secret itself goes no further than here."""

import hmac
from hashlib import sha256

from starlette.types import ASGIApp, Receive, Scope, Send

from llmproxy.config.settings import Settings
from llmproxy.ingress.paths import is_open, is_operators
from llmproxy.wire.errors import Unauthorized
from llmproxy.wire.exchange import ANYONE, EXCHANGE, Caller, Exchange
from llmproxy.wire.vocabulary import Phase


class Identify:
    """Pure ASGI. With API keys set, raises ``Unauthorized`` for a caller who has none of them."""

    def __init__(self, app: ASGIApp, settings: Settings) -> None:
        self._app = app
        self._by_key = settings.by_key
        self._token = settings.admin_token is not None
        #: digest of a key -> its name
        self._names = dict(_named(key.get_secret_value()) for key in settings.api_keys)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and not self._is_spared(scope["path"]):
            exchange: Exchange = scope[EXCHANGE]
            exchange.caller = self._caller(credential(scope["headers"]))
            exchange.mark(Phase.IDENTIFY)
        await self._app(scope, receive, send)

    def _is_spared(self, path: str) -> bool:
        return is_open(path) or (self._token and is_operators(path))

    def _caller(self, secret: str) -> Caller:
        digest = sha256(secret.encode()).hexdigest()
        name = ""
        if self._names:
            known = [name for mine, name in self._names.items() if hmac.compare_digest(mine, digest)]
            if not known:
                raise Unauthorized(
                    "Incorrect API key provided." if secret else "No API key provided; send it as a Bearer token."
                )
            name = known[0]
        if self._by_key:
            return Caller(name, scope=digest)
        return Caller(name) if name else ANYONE


def credential(headers: list[tuple[bytes, bytes]]) -> str:
    """The Bearer token (RFC 6750), or Anthropic's ``x-api-key``; "" where there is none."""
    for name, value in headers:
        if name == b"authorization":
            kind, _, token = value.decode("latin-1").partition(" ")
            return token.strip() if kind.lower() == "bearer" else kind + token
        if name == b"x-api-key":
            return value.decode("latin-1").strip()
    return ""


def _named(key: str) -> tuple[str, str]:
    name, colon, secret = key.partition(":")
    secret = secret if colon else key
    digest = sha256(secret.encode()).hexdigest()
    return digest, name if colon else digest[:8]
