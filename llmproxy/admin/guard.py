"""The operator's paths: a token where one is set. Without one the proxy listens on loopback only."""

import hmac

from starlette.types import ASGIApp, Receive, Scope, Send

from llmproxy.config.settings import Settings
from llmproxy.wire.errors import Unauthorized


class Guard:
    """Pure ASGI around ``/admin``. Raises ``Unauthorized``."""

    def __init__(self, app: ASGIApp, settings: Settings) -> None:
        self._app = app
        self._token = settings.admin_token.get_secret_value().encode() if settings.admin_token else None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if self._token is not None and not self._admits(scope["headers"]):
            raise Unauthorized(
                "The admin token is missing or wrong; send LLMPROXY_ADMIN_TOKEN as a Bearer token.",
                headers=((b"www-authenticate", b"Bearer"),),
            )
        await self._app(scope, receive, send)

    def _admits(self, headers: list[tuple[bytes, bytes]]) -> bool:
        sent = [value for name, value in headers if name == b"authorization"]
        return bool(sent) and hmac.compare_digest(sent[0], b"Bearer " + (self._token or b""))
