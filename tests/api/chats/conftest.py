"""The official client in front of the program on the scripted upstream, and databases."""

from collections.abc import Iterator

import openai
import pytest

from tests.api.chats.asking import client_of
from tests.server import Proxy


@pytest.fixture
def client(front: Proxy) -> Iterator[openai.OpenAI]:
    with client_of(front) as made:
        yield made
