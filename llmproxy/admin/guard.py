"""The operator's paths: a token where one is set. Without one the proxy listens on loopback only, and callers who are
told apart by keys have no access: they would see each other's answers."""

import hmac

from starlette.types import ASGIApp, Receive, Scope, Send

from llmproxy.config.settings import Settings
from llmproxy.wire.errors import Forbidden, Unauthorized


class Guard:
    """Pure ASGI around ``/admin``. Raises ``Unauthorized``, ``Forbidden``."""

    def __init__(self, app: ASGIApp, settings: Settings) -> None:
        self._app = app
        self._shut = settings.admin_token is None and settings.by_key
        self._token = settings.admin_token.get_secret_value().encode() if settings.admin_token else None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if self._shut:
            raise Forbidden("With API keys, these paths need LLMPROXY_ADMIN_TOKEN to be set.")
        if self._token is not None and not self._admits(scope["headers"]):
            raise Unauthorized(
                "The admin token is missing or wrong; send LLMPROXY_ADMIN_TOKEN as a Bearer token.",
                headers=((b"www-authenticate", b"Bearer"),),
            )
        await self._app(scope, receive, send)

    def _admits(self, headers: list[tuple[bytes, bytes]]) -> bool:
        sent = [value for name, value in headers if name == b"authorization"]
        return bool(sent) and hmac.compare_digest(sent[0], b"Bearer " + (self._token or b""))
