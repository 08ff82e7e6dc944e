"""Batches on real llama.cpp, through the official client."""

import pytest

from tests.api.batches.asking import client_of, created, ended, output
from tests.api.batches.made import Json
from tests.llama import CHAT_MODEL, EMBEDDING_MODEL
from tests.server import Proxy

SAID = [{"role": "user", "content": "Say hello."}]
BODIES: dict[str, Json] = {
    "/v1/chat/completions": {"model": CHAT_MODEL, "messages": SAID, "max_tokens": 8},
    "/v1/completions": {"model": CHAT_MODEL, "prompt": "Once upon", "max_tokens": 8},
    "/v1/responses": {"model": CHAT_MODEL, "input": "Say hello.", "max_output_tokens": 8},
    "/v1/embeddings": {"model": EMBEDDING_MODEL, "input": ["one", "two"]},
}


@pytest.mark.parametrize("endpoint", BODIES)
def test_answers_are_those_of_single_requests(llama_front: Proxy, endpoint: str) -> None:
    with client_of(llama_front) as client:
        lines = [
            {"custom_id": f"r{number}", "method": "POST", "url": endpoint, "body": BODIES[endpoint] | {"user": "ann"}}
            for number in range(3)
        ]
        batch = ended(client, created(client, *lines, endpoint=endpoint).id)
        assert batch.status == "completed"
        assert batch.usage is not None
        assert batch.usage.input_tokens > 0
        found = output(client, batch)
        assert list(found) == ["r0", "r1", "r2"]
        direct = client.post(
            endpoint.removeprefix("/v1"), body=BODIES[endpoint], cast_to=object, options={"max_retries": 0}
        )
        assert isinstance(direct, dict)
        for line in found.values():
            body = line["response"]["body"]
            assert body["object"] == direct["object"]
            for part in ("choices", "output", "data"):
                assert _texts(body.get(part)) == _texts(direct.get(part))


def _texts(part: object) -> object:
    """What an answer says, without the ids that are each answer's own."""
    if isinstance(part, dict):
        return {name: _texts(value) for name, value in part.items() if name != "id"}
    return [_texts(each) for each in part] if isinstance(part, list) else part


def test_any_model_name_will_do_where_the_server_takes_any(llama_front: Proxy) -> None:
    with client_of(llama_front) as client:
        body = BODIES["/v1/chat/completions"] | {"model": "gpt-9"}
        line = {"custom_id": "a", "method": "POST", "url": "/v1/chat/completions", "body": body}
        assert ended(client, created(client, line).id).status == "completed"
