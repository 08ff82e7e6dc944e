"""Mended and rendered Responses streams, read by the official client's stream helper."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import pytest
from openai import APIError, OpenAI

from llmproxy.wire.errors import UpstreamBroke
from llmproxy.wire.formats.responses import RESPONSES
from tests.upstream.test_responses_repair import STREAMS, events, mend, opening


@contextmanager
def serving(frames: list[bytes]) -> Iterator[OpenAI]:
    """A client of a server that answers everything with these frames."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["content-length"]))
            self.send_response(200)
            self.send_header("content-type", "text/event-stream")
            self.end_headers()
            self.wfile.write(b"".join(frames))

        def log_message(self, format: str, *args: Any) -> None:
            """Quiet."""

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            base_url = f"http://127.0.0.1:{server.server_port}/v1"
            with OpenAI(base_url=base_url, api_key="none", max_retries=0) as client:
                yield client
        finally:
            server.shutdown()
            thread.join()


@pytest.mark.parametrize("again", [False, True], ids=["mended", "rendered"])
@pytest.mark.parametrize("name", STREAMS)
def test_the_official_client_reads_it(name: str, again: bool) -> None:
    frames = mend(STREAMS[name])
    document = RESPONSES.assemble(frames)
    if again:
        frames = RESPONSES.render(document)
    with serving(frames) as client, client.responses.stream(model="m", input="x") as stream:
        types = [event.type for event in stream]
        response = stream.get_final_response()
    assert types == [event["type"] for event in events(frames)]
    assert response.id == document["id"]
    assert response.output_text == "".join(
        part["text"] for item in document["output"] if item["type"] == "message" for part in item["content"]
    )
    assert [item.to_dict()["id"] for item in response.output] == [item["id"] for item in document["output"]]
    assert [item.arguments for item in response.output if item.type == "function_call"] == [
        item["arguments"] for item in document["output"] if item["type"] == "function_call"
    ]


def test_the_official_client_raises_our_failure() -> None:
    frames = [*mend(opening()), RESPONSES.failure(UpstreamBroke("cut off"))]
    with (
        serving(frames) as client,
        client.responses.stream(model="m", input="x") as stream,
        pytest.raises(APIError, match="cut off"),
    ):
        stream.until_done()
