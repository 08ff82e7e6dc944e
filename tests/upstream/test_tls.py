"""Calls to a model server behind TLS: whom the client believes, and that a call is the same otherwise."""

import asyncio
import ssl
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import trustme

from llmproxy.upstream.client import CallTimeouts, HttpClient, HttpReply, send
from llmproxy.upstream.kinds import GENERIC
from llmproxy.upstream.target import Call, Target
from llmproxy.wire.errors import UpstreamBroke, UpstreamRefused
from tests.timeouts import WAIT_SECONDS
from tests.upstream.scripted import CHUNKED, Visit, chunk, scripted

AMPLE = CallTimeouts(connect=WAIT_SECONDS, first_byte=WAIT_SECONDS, idle=WAIT_SECONDS)
CALL = Call("POST", b"/v1/chat/completions", [(b"content-type", b"application/json")], b"{}")


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
async def client(authority: trustme.CA, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[HttpClient]:
    """It believes the authority, as a user says it: by the variable that OpenSSL reads."""
    file = tmp_path / "authority.pem"
    authority.cert_pem.write_to_path(str(file))
    monkeypatch.setenv("SSL_CERT_FILE", str(file))
    client = HttpClient()
    yield client
    await client.aclose()


def context(authority: trustme.CA, name: str = "127.0.0.1") -> ssl.SSLContext:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert(name).configure_cert(context)
    return context


async def whole(reply: HttpReply) -> bytes:
    try:
        return b"".join([piece async for piece in reply.chunks()])
    finally:
        await reply.aclose()


async def test_calls_share_a_connection(client: HttpClient, authority: trustme.CA) -> None:
    async def echo(visit: Visit) -> None:
        await visit.reply(visit.body)

    async with scripted(echo, context(authority)) as server:
        for body in (b"{}", b"x" * 1_000_000):
            call = Call(CALL.method, CALL.target, CALL.headers, body)
            assert await whole(await send(client, Target.at(server.url, GENERIC), call, AMPLE)) == body
        assert server.connections == 1


async def test_pieces_come_as_they_are_sent(client: HttpClient, authority: trustme.CA) -> None:
    taken = asyncio.Event()

    async def pieces(visit: Visit) -> None:
        await visit.write(CHUNKED, chunk(b"one"))
        await taken.wait()
        await visit.write(chunk(b"two"), b"0\r\n\r\n")

    async with scripted(pieces, context(authority)) as server:
        reply = await send(client, Target.at(server.url, GENERIC), CALL, AMPLE)
        assert await anext(reply.chunks()) == b"one"
        taken.set()
        assert await whole(reply) == b"two"


async def test_a_connection_that_is_closed_in_the_middle(client: HttpClient, authority: trustme.CA) -> None:
    async def torn(visit: Visit) -> None:
        await visit.write(CHUNKED, chunk(b"one"))
        visit.close()

    async with scripted(torn, context(authority)) as server:
        reply = await send(client, Target.at(server.url, GENERIC), CALL, AMPLE)
        with pytest.raises(UpstreamBroke):
            await whole(reply)


async def test_a_certificate_for_another_name(client: HttpClient, authority: trustme.CA) -> None:
    async def never(visit: Visit) -> None:
        await visit.reply(b"secret")

    async with scripted(never, context(authority, "elsewhere.example")) as server:
        with pytest.raises(UpstreamRefused, match="certificate verify failed"):
            await send(client, Target.at(server.url, GENERIC), CALL, AMPLE)
        assert not server.visits


async def test_a_certificate_of_nobody_known(client: HttpClient) -> None:
    async def never(visit: Visit) -> None:
        await visit.reply(b"secret")

    async with scripted(never, context(trustme.CA())) as server:
        with pytest.raises(UpstreamRefused, match="certificate verify failed"):
            await send(client, Target.at(server.url, GENERIC), CALL, AMPLE)
        assert not server.visits
