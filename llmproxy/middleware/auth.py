"""Authentication by API key or admin token. The secrets themselves go no further than here."""

import hmac

from llmproxy.config.settings import Settings
from llmproxy.config.values import parse_api_key
from llmproxy.middleware.origin import hostname, is_loopback
from llmproxy.middleware.routing import AccessLevel
from llmproxy.wire.errors import Forbidden, Unauthorized
from llmproxy.wire.exchange import ANYONE, Caller
from llmproxy.wire.headers import HeaderList, bearer_tokens, credentials, fingerprint

_BEARER = ((b"www-authenticate", b"Bearer"),)
#: what a reverse proxy adds to a request (RFC 7239, RFC 9110 section 7.6.3, and the names before them)
_FORWARDED = frozenset(
    {b"forwarded", b"via", b"x-forwarded-for", b"x-forwarded-host", b"x-forwarded-proto", b"x-real-ip"}
)


class Authenticator:
    """Decides who is let in at each access level."""

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
        #: the caller who sends no secret, if there are no keys
        self._nobody = self._unnamed([])
        # callers with keys must not see each other's answers in the history
        self._shut = token is None and (bool(self._names) or self._separate)

    def admit(self, access: AccessLevel, headers: HeaderList, address: str) -> Caller:
        """Returns the caller, as far as the access level needs it. Raises ``Unauthorized``, ``Forbidden``.

        ``address`` is the server's at which the request arrived, "" for one that is no network's.
        """
        match access:
            case AccessLevel.OPEN:
                return ANYONE
            case AccessLevel.OPERATOR:
                self._check_operator(headers, address)
                return ANYONE
            case AccessLevel.CALLER:
                return self._caller(headers)

    def _check_operator(self, headers: HeaderList, address: str) -> None:
        if self._shut:
            raise Forbidden("Where callers are told apart by keys, these paths need LLMPROXY_ADMIN_TOKEN to be set.")
        if self._token is None:
            if not _is_local(headers, address):
                raise Forbidden("Where others can connect, these paths need LLMPROXY_ADMIN_TOKEN to be set.")
            return
        sent = bearer_tokens(headers)
        if len(sent) != 1 or not hmac.compare_digest(sent[0], self._token):
            raise Unauthorized(
                "The admin token is missing or wrong; send LLMPROXY_ADMIN_TOKEN as a Bearer token.", headers=_BEARER
            )

    def _caller(self, headers: HeaderList) -> Caller:
        secrets = credentials(headers)
        if not self._names:
            return self._unnamed(secrets) if secrets else self._nobody
        if sum(name == b"authorization" for name, _ in headers) > 1:
            raise Unauthorized("More than one Authorization header was sent.", headers=_BEARER)
        owners = {mark for secret in secrets if (mark := self._key_of(fingerprint([secret])))}
        if len(owners) != 1:
            raise Unauthorized(_refusal(bool(secrets), bool(owners)), headers=_BEARER)
        owner = owners.pop()
        return Caller(self._names[owner], scope=owner if self._separate else "", owner=owner)

    def _unnamed(self, secrets: list[bytes]) -> Caller:
        mark = fingerprint(secrets)
        owner = mark if self._separate else ""
        return Caller("", scope=owner, owner=owner, credential=mark if self._forwards else "")

    def _key_of(self, mark: str) -> str:
        """Returns the key with this fingerprint, "" if there is none. Every key is compared, each in constant time."""
        return "".join(key for key in self._names if hmac.compare_digest(key, mark))


def _is_local(headers: HeaderList, address: str) -> bool:
    """Whether a request was sent on this machine to this machine.

    ``llmproxy serve`` listens on loopback if there is no token; another ASGI server may listen where it likes, and
    behind a reverse proxy on the same machine every request comes from loopback.
    """
    if address and not is_loopback(address):
        return False
    hosts = [hostname(value.decode("latin-1")) for name, value in headers if name == b"host"]
    return all(map(is_loopback, hosts)) and not any(name in _FORWARDED for name, _ in headers)


def _refusal(sent: bool, several: bool) -> str:
    if several:
        return "API keys of different callers were sent."
    return "Incorrect API key provided." if sent else "No API key provided; send it as a Bearer token."
