"""One POST to somebody who is to be told something. It is no model server: neither its limits nor its words apply."""

import asyncio
from dataclasses import dataclass

import httpx

from llmproxy.upstream.client import AiohttpTransport, Bytes
from llmproxy.upstream.target import HeaderList


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
    transport = AiohttpTransport()
    try:
        request = httpx.Request("POST", url, headers=headers, stream=Bytes(body))
        async with asyncio.timeout(seconds):
            response = await transport.handle_async_request(request)
        await response.aclose()
    except TimeoutError:
        raise PostFailed(f"no answer within {seconds:g} s") from None
    except httpx.TransportError as error:
        raise PostFailed(str(error)) from error
    except (httpx.InvalidURL, ValueError) as error:
        raise PostFailed(f"the URL cannot be used: {error}") from error
    finally:
        await transport.aclose()
    return Posted(response.status_code, [(name.lower(), value) for name, value in response.headers.raw])
