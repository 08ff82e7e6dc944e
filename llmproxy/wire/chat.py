"""The answers of ``/v1/chat/completions``."""

from collections.abc import Sequence

from llmproxy.wire import chunks
from llmproxy.wire.chat_assembly import Choice
from llmproxy.wire.chat_rendering import deltas
from llmproxy.wire.dialect import Document

#: the fingerprint of Ollama, whose plain answers have the indexes of tool calls too
_OLLAMA = "fp_ollama"


class _Chat(chunks.ChunkDialect):
    __slots__ = ()

    name: str = "chat"
    said: str = "message"
    said_type: type = dict

    def assemble(self, frames: Sequence[bytes]) -> Document:
        doubts: list[str] = []
        shell = chunks.Shell(doubts)
        choices: dict[int, Choice] = {}
        for chunk in chunks.read(frames):
            shell.add(chunk)
            for index, choice in chunks.entries(chunk):
                choices.setdefault(index, Choice(index, doubts)).add(choice)
        for whole in choices.values():
            shell.ended(whole.finish_reason, whole.pieces)
        numbered = shell.fingerprint == _OLLAMA
        results = [choices[index].result(numbered=numbered) for index in sorted(choices)]
        return shell.document("chat.completion", results)

    def render(self, document: Document) -> list[bytes]:
        choices = [delta for index, choice in chunks.in_order(document) for delta in deltas(index, choice)]
        return chunks.write(document, "chat.completion.chunk", choices)


CHAT = _Chat()
