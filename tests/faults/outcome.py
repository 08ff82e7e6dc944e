"""What a client sees of one request: the bytes, and whether they amount to an error that every SDK raises."""

import asyncio
from dataclasses import dataclass
from typing import Any

import httpx

from tests.scripted import Endpoint, Json, marker
from tests.timeouts import WAIT_SECONDS


@dataclass(frozen=True, slots=True)
class Outcome:
    """``broken`` says that the connection ended before the answer did."""

    status: int
    headers: httpx.Headers
    body: bytes
    broken: bool = False

    @property
    def cache(self) -> str:
        """``X-Cache``."""
        return str(self.headers.get("x-cache", ""))


async def ask(
    http: httpx.AsyncClient, endpoint: Endpoint, request: Json, headers: dict[str, str] | None = None
) -> Outcome:
    """Sends a request and reads its answer to the end, however it ends."""
    async with http.stream("POST", endpoint.path, json=request, headers=headers) as response:
        body = bytearray()
        broken = False
        try:
            async for piece in response.aiter_bytes():
                body += piece
        except httpx.TransportError:
            broken = True
        return Outcome(response.status_code, response.headers, bytes(body), broken)


async def arrived(http: httpx.AsyncClient, endpoint: Endpoint, count: int) -> None:
    """Returns when the proxy has exactly ``count`` requests in work for an endpoint, by its own metric."""
    label = f'llmproxy_requests_in_flight{{endpoint="{endpoint.name}"}}'
    async with asyncio.timeout(WAIT_SECONDS):
        while True:
            page = (await http.get("/metrics")).text
            now = next((line for line in page.splitlines() if line.startswith(label)), "0")
            if int(float(now.split()[-1])) == count:
                return


async def joined(http: httpx.AsyncClient, endpoint: Endpoint, count: int) -> None:
    """Returns when ``count`` requests are in work and wait for their answers.

    A request that came after all of them has gone the whole way: so they are past the look-up.
    """
    await arrived(http, endpoint, count)
    assert (await ask(http, endpoint, endpoint.request(marker()))).status == 200


def refused(outcome: Outcome, path: str = "/v1/chat/completions") -> Json:
    """The error of an answer with an error status, which must be the whole of it in the form of the path's API."""
    assert outcome.status >= 400, outcome
    assert outcome.headers["content-type"].startswith("application/json")
    assert outcome.headers["x-request-id"]
    document = httpx.Response(200, content=outcome.body).json()
    if path.startswith("/api/"):
        assert isinstance(document["error"], str)
        return {"message": document["error"]}
    if path.startswith("/v1/messages"):
        assert document["type"] == "error"
        assert document["request_id"]
        assert document["error"]["type"].endswith("_error")
        assert document["error"]["message"]
        return dict(document["error"])
    return envelope(document)


def envelope(document: Any) -> Json:
    """The error inside OpenAI's envelope: four members at least, the code a text, the upstream's number, or null."""
    error = document["error"]
    assert isinstance(error, dict)
    assert {"message", "type", "param", "code"} <= error.keys()
    assert isinstance(error["message"], str)
    assert error["message"]
    assert isinstance(error["type"], str)
    assert error["code"] is None or isinstance(error["code"], str | int)
    return error


def failed_inside(endpoint: Endpoint, outcome: Outcome) -> str:
    """The message of the error that ends a stream. The stream must not look complete as well."""
    assert outcome.status == 200
    assert not outcome.broken
    assert b"[DONE]" not in outcome.body
    last = endpoint.decoded(outcome.body)[-1]
    if endpoint.lines:
        assert isinstance(last["error"], str)
        return last["error"]
    if last.get("type") == "response.failed":
        assert last["response"]["status"] == "failed"
        return str(last["response"]["error"]["message"])
    if endpoint.name in {"responses", "messages"}:
        assert last["type"] == "error"
        return str(last["error"]["message"])
    return str(envelope(last)["message"])


def failed(endpoint: Endpoint, outcome: Outcome) -> str:
    """The message of a failure, with an error status or inside the stream."""
    if outcome.status == 200:
        return failed_inside(endpoint, outcome)
    error = httpx.Response(200, content=outcome.body).json()["error"]
    return str(error["message"] if isinstance(error, dict) else error)
