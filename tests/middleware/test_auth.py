"""Who is let in, beside what real requests show in ``test_access_rights``."""

from typing import Any

import pytest

from llmproxy.config.load import load
from llmproxy.middleware.auth import Authenticator
from llmproxy.middleware.routing import AccessLevel
from llmproxy.wire.errors import Forbidden, Unauthorized


def operator(address: str, *headers: tuple[bytes, bytes], **settings: Any) -> None:
    Authenticator(load(settings, {}).settings).admit(AccessLevel.OPERATOR, [*headers], address)


@pytest.mark.parametrize("address", ["192.0.2.7", "2001:db8::7", "0.0.0.0", "proxy.example"])
def test_operators_need_a_token_where_others_can_connect(address: str) -> None:
    """Another server than ``llmproxy serve`` listens where it likes, whatever the settings say."""
    with pytest.raises(Forbidden, match="LLMPROXY_ADMIN_TOKEN"):
        operator(address)
    with pytest.raises(Unauthorized):
        operator(address, admin_token="secret")
    operator(address, (b"authorization", b"Bearer secret"), admin_token="secret")


@pytest.mark.parametrize("address", ["127.0.0.1", "::1", "localhost", ""])
def test_operators_of_this_machine_need_none_unless_it_is_set(address: str) -> None:
    operator(address)
    with pytest.raises(Unauthorized):
        operator(address, admin_token="secret")
