"""The answers of legacy ``/v1/completions``: one object in both modes, its text in pieces when streamed."""

from collections.abc import Iterator, Sequence
from typing import Any

from llmproxy.wire import chunks
from llmproxy.wire.deltas import Deltas
from llmproxy.wire.dialect import Document


class _Completions(chunks.ChunkDialect):
    __slots__ = ()

    name: str = "completions"
    said: str = "text"
    said_type: type = str

    def assemble(self, frames: Sequence[bytes]) -> Document:
        doubts: list[str] = []
        shell = chunks.Shell(doubts)
        choices: dict[int, _Choice] = {}
        for chunk in chunks.read(frames):
            shell.add(chunk)
            for index, choice in chunks.entries(chunk):
                choices.setdefault(index, _Choice(index, doubts)).add(choice)
        for whole in choices.values():
            shell.ended(whole.finish_reason, whole.pieces)
        return shell.document("text_completion", [choices[index].result() for index in sorted(choices)])

    def render(self, document: Document) -> list[bytes]:
        parts = [part for index, choice in chunks.in_order(document) for part in _parts(index, choice)]
        return chunks.write(document, "text_completion", parts)


class _Choice:
    """One choice under way."""

    __slots__ = ("_index", "_logprobs", "_members", "finish_reason", "pieces")

    def __init__(self, index: int, doubts: list[str]):
        #: chunks with some text
        self.pieces = 0
        self.finish_reason: object = None
        self._index = index
        self._members = Deltas(doubts, joined=frozenset({"text"}), grown=chunks.GROWN)
        self._logprobs = chunks.Logprobs(doubts)

    def add(self, choice: dict[str, Any]) -> None:
        logprobs = choice.get("logprobs")
        if isinstance(logprobs, dict):
            self._logprobs.add(logprobs)
            choice = {name: value for name, value in choice.items() if name != "logprobs"}
        self.pieces += bool(choice.get("text"))
        self.finish_reason = choice.get("finish_reason") or self.finish_reason
        self._members.add(chunks.finished(choice))

    def result(self) -> dict[str, Any]:
        choice = {"finish_reason": None, **self._members.result(), "index": self._index}
        if self._logprobs:
            choice["logprobs"] = self._logprobs.result()
        return choice


def _parts(index: int, choice: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """The text with its logprobs, then the finish reason with whatever else the choice has."""
    opening = {name: choice[name] for name in ("text", "logprobs") if name in choice}
    yield opening | {"index": index, "finish_reason": None}
    closing = choice | {"index": index, "text": ""}
    if "logprobs" in closing:
        closing["logprobs"] = None
    yield closing


COMPLETIONS = _Completions()
