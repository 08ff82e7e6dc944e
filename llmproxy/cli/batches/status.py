"""How a batch stands, read from its document, and what is said of it."""

from collections.abc import Iterator
from dataclasses import dataclass

from llmproxy.cli.client import Json
from llmproxy.cli.columns import NOTHING, aligned, printable
from llmproxy.cli.failure import CommandFailed

_OVER = frozenset({"completed", "failed", "cancelled", "expired"})
#: of a message from the proxy
_LONGEST = 300


@dataclass(frozen=True)
class BatchStatus:
    """``hits`` is None where the proxy does not tell. ``output`` and ``errors`` are ids of files, "" where there is
    none. ``seconds`` is None while it is not over."""

    id: str
    status: str
    total: int
    completed: int
    failed: int
    hits: int | None
    input_tokens: int
    output_tokens: int
    output: str
    errors: str
    seconds: int | None
    #: line by line, what is wrong with the input
    flaws: tuple[str, ...]

    @property
    def over(self) -> bool:
        return self.status in _OVER

    @property
    def refused(self) -> bool:
        """Whether its input was wrong, and nothing was run."""
        return self.status == "failed"

    @property
    def ended(self) -> int:
        """Lines that are over."""
        return self.completed + self.failed


def standing(batch: Json) -> BatchStatus:
    """Raises ``CommandFailed`` for a document that is no batch."""
    try:
        counts, usage = batch["request_counts"], batch.get("usage") or {}
        status, hits = str(batch["status"]), (batch.get("llmproxy") or {}).get("hits")
        end = batch.get(f"{status}_at") if status in _OVER else None
        return BatchStatus(
            id=printable(str(batch["id"]), 80),
            status=printable(status, 20),
            total=int(counts["total"]),
            completed=int(counts["completed"]),
            failed=int(counts["failed"]),
            hits=None if hits is None else int(hits),
            input_tokens=int(usage.get("input_tokens", 0)),
            output_tokens=int(usage.get("output_tokens", 0)),
            output=str(batch.get("output_file_id") or ""),
            errors=str(batch.get("error_file_id") or ""),
            seconds=None if end is None else int(end) - int(batch["created_at"]),
            flaws=tuple(_flaw(each) for each in (batch.get("errors") or {}).get("data", ())),
        )
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise CommandFailed(f"the proxy's answer is not understood: {printable(str(batch), _LONGEST)}") from error


def summary(batch: BatchStatus) -> Iterator[str]:
    """What came of it, for people."""
    rows = [
        ["batch", f"{batch.id}, {batch.status}"],
        ["completed", f"{batch.completed:,} of {batch.total:,}"],
        ["failed", f"{batch.failed:,}"],
        ["hits", NOTHING if batch.hits is None else f"{batch.hits:,}"],
        ["tokens", f"{batch.input_tokens:,} of prompts, {batch.output_tokens:,} of completions"],
        ["took", NOTHING if batch.seconds is None else f"{batch.seconds:,} s"],
    ]
    yield from aligned(rows, left=2)


def _flaw(error: Json) -> str:
    line = error.get("line")
    message = printable(str(error["message"]), _LONGEST)
    return message if line is None else f"line {line}: {message}"
