"""The answers of ``/v1/chat/completions``."""

from collections.abc import Sequence

from llmproxy.wire import chunks
from llmproxy.wire.chat_assembly import Choice
from llmproxy.wire.chat_rendering import deltas
from llmproxy.wire.dialect import Document


class _Chat(chunks.ChunkDialect):
    __slots__ = ()

    name: str = "chat"
    said: str = "message"
    said_type: type = dict

    def assemble(self, frames: Sequence[bytes]) -> Document:
        shell = chunks.Shell()
        choices: dict[int, Choice] = {}
        for chunk in chunks.read(frames):
            shell.add(chunk)
            for index, choice in chunks.entries(chunk):
                choices.setdefault(index, Choice(index)).add(choice)
        return shell.document("chat.completion", [choices[index].result() for index in sorted(choices)])

    def render(self, document: Document) -> list[bytes]:
        choices = [delta for index, choice in chunks.in_order(document) for delta in deltas(index, choice)]
        return chunks.write(document, "chat.completion.chunk", choices)


CHAT = _Chat()
