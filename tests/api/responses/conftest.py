"""The official client in front of the program, on llama.cpp and on the scripted upstream; databases."""

from collections.abc import Iterator

import openai
import pytest

from tests.api.responses.asking import client_of
from tests.server import Proxy


@pytest.fixture
def client(llama_front: Proxy) -> Iterator[openai.OpenAI]:
    """On llama.cpp."""
    with client_of(llama_front) as made:
        yield made


@pytest.fixture
def scripted(front: Proxy) -> Iterator[openai.OpenAI]:
    """On the scripted upstream."""
    with client_of(front) as made:
        yield made
