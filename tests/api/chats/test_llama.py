"""Stored chat completions from end to end, on llama.cpp, as the official client's users write it."""

import openai
import pytest

from tests.api.chats.asking import client_of, parse_metadata
from tests.e2e.asking import chat
from tests.scripted import marker
from tests.server import Proxy


@pytest.mark.parametrize("base", ["/v1", ""])
def test_an_answer_is_stored_shown_labelled_and_deleted(llama_front: Proxy, base: str) -> None:
    with client_of(llama_front, base=base) as client:
        completions, label = client.chat.completions, {"test": marker()}
        made = completions.create(**chat(), store=True, metadata=label)
        chunks = list(completions.create(**chat("Say bye."), store=True, metadata=label, stream=True))
        (id,) = {chunk.id for chunk in chunks}
        listed = list(completions.list(metadata=label, limit=1))
        assert [each.id for each in listed] == [made.id, id]
        assert listed[0].choices == made.choices
        assert listed[0].usage == made.usage
        said = "".join(choice.delta.content or "" for chunk in chunks for choice in chunk.choices)
        assert listed[1].choices[0].message.content == said
        assert completions.retrieve(id) == listed[1]
        assert parse_metadata(completions.update(id, metadata={"done": "yes"})) == {"done": "yes"}
        assert [message.content for message in completions.messages.list(id)] == ["Say bye."]
        assert completions.delete(id).deleted
        with pytest.raises(openai.NotFoundError):
            completions.retrieve(id)
