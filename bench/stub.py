#!/usr/bin/env python3
"""`stub.py PORT`: what stub.c is, for a machine without a C compiler.

It gives 0.8 of its rate for plain answers and 0.3 for streams. The same wishes in the prompt, `[stub d=US c=US n=N]`,
and the same `GET /__count`.
"""

import asyncio
import json
import re
import sys

_CONTENT = "Caching a completion saves both money and time because the same question is answered from storage. " * 6
_MODEL = "gpt-4o-mini"
_HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n"
_STREAM_HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
_MODELS = {"object": "list", "data": [{"id": _MODEL, "object": "model", "created": 1, "owned_by": "stub"}]}

counts = {"posts": 0, "streams": 0, "aborted": 0}


def _json(document: object) -> bytes:
    body = json.dumps(document).encode()
    return _HEAD % len(body) + body


_ANSWER = _json(
    {
        "id": "chatcmpl-AbCdEfGhIjKlMnOpQrStUvWxYz012",
        "object": "chat.completion",
        "created": 1760000000,
        "model": _MODEL,
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant", "content": _CONTENT, "refusal": None},
                "logprobs": None,
                "finish_reason": "stop",
            }
        ],
        "usage": {"prompt_tokens": 24, "completion_tokens": 102, "total_tokens": 126},
    }
)


def _chunk(number: int, *, last: bool) -> bytes:
    choice = {"index": 0, "delta": {"content": f" token{number}"}, "finish_reason": "stop" if last else None}
    document = {"id": "chatcmpl-AbCdEfGhIjKl", "object": "chat.completion.chunk", "created": 1760000000}
    event = b"data: " + json.dumps(document | {"model": _MODEL, "choices": [choice]}).encode() + b"\n\n"
    return b"%x\r\n%b\r\n" % (len(event), event)


class Stub(asyncio.Protocol):
    """One connection; requests are answered one after another."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport
        self._waiting = b""
        self._task: asyncio.Task[None] | None = None

    def connection_lost(self, error: Exception | None) -> None:
        if self._task is not None:
            counts["aborted"] += 1
            self._task.cancel()

    def data_received(self, data: bytes) -> None:
        self._waiting += data
        self._step()

    def _step(self) -> None:
        while self._task is None and (size := _request_size(self._waiting)):
            request, self._waiting = self._waiting[:size], self._waiting[size:]
            self._answer(request)

    def _answer(self, request: bytes) -> None:
        if request.startswith(b"GET"):
            self._transport.write(_json(counts if request.startswith(b"GET /__count") else _MODELS))
            return
        counts["posts"] += 1
        wishes = {"d": 0, "c": 0, "n": 100}
        if said := re.search(rb"\[stub ([^\]]*)\]", request):
            wishes |= {name.decode(): int(value) for name, value in re.findall(rb"([dcn])=(\d+)", said[1])}
        stream = bool(re.search(rb'"stream" *: *true', request))
        if stream or wishes["d"]:
            self._task = asyncio.create_task(self._answer_slowly(wishes, stream=stream))
        else:
            self._transport.write(_ANSWER)

    async def _answer_slowly(self, wishes: dict[str, int], *, stream: bool) -> None:
        if wishes["d"]:
            await asyncio.sleep(wishes["d"] / 1e6)
        if stream:
            counts["streams"] += 1
            self._transport.write(_STREAM_HEAD)
            for number in range(1, wishes["n"] + 1):
                self._transport.write(_chunk(number, last=number == wishes["n"]))
                if wishes["c"] and number < wishes["n"]:
                    await asyncio.sleep(wishes["c"] / 1e6)
            self._transport.write(b"e\r\ndata: [DONE]\n\n\r\n0\r\n\r\n")
        else:
            self._transport.write(_ANSWER)
        self._task = None
        self._step()


def _request_size(data: bytes) -> int:
    """Bytes of the first request, 0 while it is not whole."""
    end = data.find(b"\r\n\r\n")
    if end < 0:
        return 0
    if re.search(rb"\r\ntransfer-encoding: *chunked", data[:end], re.I):
        return data.find(b"\r\n0\r\n\r\n", end) + 7 if b"\r\n0\r\n\r\n" in data[end:] else 0
    length = re.search(rb"\r\ncontent-length: *(\d+)", data[:end], re.I)
    size = end + 4 + (int(length[1]) if length else 0)
    return size if len(data) >= size else 0


async def main(port: int) -> None:
    server = await asyncio.get_running_loop().create_server(Stub, "127.0.0.1", port, backlog=2048)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1])))
