#!/usr/bin/env python3
"""`slots.py PORT`: a model server of llama.cpp's kind with four slots. Each answer takes a fifth of a second of one."""

import asyncio
import json
import sys

from stub import _ANSWER, _json, _request_size

SLOTS = 4
SECONDS = 0.2

_PROPS = {"default_generation_settings": {"params": {}}, "total_slots": SLOTS, "model_path": "/models/paced.gguf"}
_MODELS = {"object": "list", "data": [{"id": "gpt-4o-mini", "object": "model", "created": 1, "owned_by": "llamacpp"}]}
_PAGES = {"/props": _PROPS, "/v1/models": _MODELS}

#: the answer as the stream that llama.cpp is asked for
_CHUNK = {
    "id": "chatcmpl-paced",
    "object": "chat.completion.chunk",
    "created": 1760000000,
    "model": "gpt-4o-mini",
    "choices": [{"index": 0, "delta": {"role": "assistant", "content": "paced"}, "finish_reason": "stop"}],
}
_EVENTS = b"data: " + json.dumps(_CHUNK).encode() + b"\n\ndata: [DONE]\n\n"
_STREAM = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ncontent-length: %d\r\n\r\n%b" % (
    len(_EVENTS),
    _EVENTS,
)


async def main(port: int) -> None:
    slots = asyncio.Semaphore(SLOTS)

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        waiting = b""
        while True:
            while not (size := _request_size(waiting)):
                piece = await reader.read(65_536)
                if not piece:
                    writer.close()
                    return
                waiting += piece
            request, waiting = waiting[:size], waiting[size:]
            method, target = request.split(b" ", 2)[:2]
            if method == b"GET":
                writer.write(_json(_PAGES.get(target.decode(), {})))
                continue
            async with slots:
                await asyncio.sleep(SECONDS)
            writer.write(_STREAM if b'"stream":true' in request.replace(b" ", b"") else _ANSWER)

    server = await asyncio.start_server(serve, "127.0.0.1", port, backlog=2048)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1])))
