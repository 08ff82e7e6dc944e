"""Official clients, and databases."""

from collections.abc import Iterator

import openai
import pytest

from tests.api.batches.asking import client_of
from tests.server import Proxy


@pytest.fixture
def client(front: Proxy) -> Iterator[openai.OpenAI]:
    """The official client of the program in front of the scripted upstream."""
    with client_of(front) as made:
        yield made
