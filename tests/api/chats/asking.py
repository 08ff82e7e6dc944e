"""What the tests of stored chat completions ask."""

from typing import Any

import openai
from openai.types.chat import ChatCompletion

from tests.server import Proxy


def client_of(proxy: Proxy, key: str = "none", base: str = "/v1") -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{proxy.url}{base}", api_key=key, max_retries=0, timeout=60)


def chat(prompt: str, **more: Any) -> dict[str, Any]:
    """A request for a stored chat completion."""
    return {"model": "m", "messages": [{"role": "user", "content": prompt}], "store": True, **more}


def stored(client: openai.OpenAI, prompt: str, **more: Any) -> ChatCompletion:
    made: ChatCompletion = client.chat.completions.create(**chat(prompt, **more))
    return made


def parse_metadata(answer: Any) -> Any:
    """Its ``metadata``, a member that the client's type does not name."""
    return answer.to_dict()["metadata"]
