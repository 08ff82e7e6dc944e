"""One POST to somebody who is to be told something. It is no model server: neither its limits nor its words apply."""

import asyncio
from dataclasses import dataclass
from urllib.parse import quote, urlsplit

from llmproxy.upstream.client import (
    CallTimeouts,
    ConnectFailed,
    ConnectionClosed,
    HttpClient,
    LimitReached,
    NotHttp,
    open_reply,
)
from llmproxy.upstream.kinds import GENERIC
from llmproxy.upstream.target import Address, Call, Target
from llmproxy.wire.headers import HeaderList

#: what a path and a query may hold as it is (RFC 3986)
_SAFE = "/?%:@!$&'()*+,;=~-._[]"


@dataclass(frozen=True, slots=True)
class Posted:
    """What came back. ``headers`` have lower-case names."""

    status: int
    headers: HeaderList


class PostFailed(Exception):
    """Nobody answered; the message says why."""


async def post(url: str, headers: HeaderList, body: bytes, seconds: float) -> Posted:
    """POSTs once, on a connection of its own, within ``seconds``. No redirect is followed, the answer's body not read.

    Raises ``PostFailed``.
    """
    client = HttpClient()
    try:
        async with asyncio.timeout(seconds):
            parts = urlsplit(url)
            path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
            call = Call("POST", quote(path, _SAFE).encode(), headers, body)
            limits = CallTimeouts(seconds, seconds, seconds)
            reply = await open_reply(client, Target(url, GENERIC, Address.of(url)), call, limits)
    except (TimeoutError, LimitReached):
        raise PostFailed(f"no answer within {seconds:g} s") from None
    except (ConnectFailed, ConnectionClosed, NotHttp) as error:
        raise PostFailed(str(error) or "the connection was closed") from error
    except ValueError as error:
        raise PostFailed(f"the URL cannot be used: {error}") from error
    finally:
        await client.aclose()
    return Posted(reply.status, reply.headers)
