"""Phase ``identify``: which route the request is for, who asks, and whether they may.

The secrets themselves go no further than here.
"""

import hmac

from starlette.types import ASGIApp, Receive, Scope, Send

from llmproxy.config.settings import Settings
from llmproxy.config.values import parse_api_key
from llmproxy.middleware.routing import RESOLVED, AccessLevel, RouteTable
from llmproxy.wire.errors import Forbidden, Unauthorized
from llmproxy.wire.exchange import ANYONE, EXCHANGE, Caller, Exchange
from llmproxy.wire.headers import bearer_tokens, credentials, fingerprint
from llmproxy.wire.vocabulary import Phase

Headers = list[tuple[bytes, bytes]]

_BEARER = ((b"www-authenticate", b"Bearer"),)


class Identify:
    """Pure ASGI. Raises ``Unauthorized`` and ``Forbidden`` for whom the route's access level shuts out."""

    def __init__(self, app: ASGIApp, settings: Settings, routes: RouteTable) -> None:
        self._app = app
        self._routes = routes
        self._doors = Doors(settings)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            exchange: Exchange = scope[EXCHANGE]
            resolved = scope[RESOLVED] = self._routes.resolve(scope)
            scope.update(resolved.members)
            exchange.caller = self._doors.admit(resolved.access, scope["headers"])
            exchange.mark(Phase.IDENTIFY)
        await self._app(scope, receive, send)


class Doors:
    """Who is let in at each access level."""

    def __init__(self, settings: Settings) -> None:
        self._separate = settings.by_key
        #: whether what a caller presents goes upstream
        self._forwards = settings.forwards_credentials
        #: fingerprint of a key -> its name
        self._names = {
            fingerprint([secret.encode()]): name
            for name, secret in (parse_api_key(key.get_secret_value()) for key in settings.api_keys)
        }
        token = settings.admin_token
        self._token = token.get_secret_value().encode() if token is not None else None
        # callers who are told apart must not see each other's answers in the history
        self._shut = token is None and (bool(self._names) or self._separate)

    def admit(self, access: AccessLevel, headers: Headers) -> Caller:
        """Who asks, as far as the access level needs to know. Raises ``Unauthorized``, ``Forbidden``."""
        match access:
            case AccessLevel.OPEN:
                return ANYONE
            case AccessLevel.OPERATOR:
                self._check_operator(headers)
                return ANYONE
            case AccessLevel.CALLER:
                return self._caller(headers)

    def _check_operator(self, headers: Headers) -> None:
        if self._shut:
            raise Forbidden("Where callers are told apart by keys, these paths need LLMPROXY_ADMIN_TOKEN to be set.")
        if self._token is None:
            return
        sent = bearer_tokens(headers)
        if len(sent) != 1 or not hmac.compare_digest(sent[0], self._token):
            raise Unauthorized(
                "The admin token is missing or wrong; send LLMPROXY_ADMIN_TOKEN as a Bearer token.", headers=_BEARER
            )

    def _caller(self, headers: Headers) -> Caller:
        secrets = credentials(headers)
        if not self._names:
            mark = fingerprint(secrets)
            owner = mark if self._separate else ""
            return Caller("", scope=owner, owner=owner, credential=mark if self._forwards else "")
        if sum(name == b"authorization" for name, _ in headers) > 1:
            raise Unauthorized("More than one Authorization header was sent.", headers=_BEARER)
        known = {mark for secret in secrets if (mark := self._known(fingerprint([secret])))}
        if len(known) != 1:
            raise Unauthorized(_refusal(bool(secrets), bool(known)), headers=_BEARER)
        owner = known.pop()
        return Caller(self._names[owner], scope=owner if self._separate else "", owner=owner)

    def _known(self, mark: str) -> str:
        """The key with this fingerprint, "" where there is none: every key is compared, each in constant time."""
        return "".join(known for known in self._names if hmac.compare_digest(known, mark))


def _refusal(sent: bool, several: bool) -> str:
    if several:
        return "API keys of different callers were sent."
    return "Incorrect API key provided." if sent else "No API key provided; send it as a Bearer token."
