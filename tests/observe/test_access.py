import io
from collections.abc import Sequence

from llmproxy.observe.access_log import AccessLog
from llmproxy.observe.formatters import TextFormatter
from llmproxy.observe.log_writer import AsyncLogWriter
from llmproxy.wire.exchange import Exchange
from llmproxy.wire.vocabulary import CacheStatus
from tests.observe.exchanges import hit


class Counted(io.StringIO):
    """Counts the writes."""

    writes = 0

    def write(self, text: str) -> int:
        self.writes += 1
        return super().write(text)


def written(
    batch: Sequence[Exchange], hits: Sequence[tuple[Exchange, int]] = (), *, failures_only: bool = False
) -> tuple[list[str], int]:
    """The lines without their time, and in how many writes they came."""
    stream = Counted()
    form = TextFormatter(colour=False)
    outlet = AsyncLogWriter(stream, lost=form.lost)
    log = AccessLog(form, outlet, failures_only=failures_only, limit=3, clock=lambda: 0.0)
    log.write(batch, hits)
    outlet.close()
    return [line.split(" ", 1)[1] for line in stream.getvalue().splitlines()], stream.writes


def ids(lines: list[str]) -> list[str]:
    return [line.split(" ")[-1] for line in lines]


def test_a_batch_is_one_write() -> None:
    lines, writes = written([hit(request_id=f"r{number}") for number in range(3)])
    assert ids(lines) == ["r0", "r1", "r2"]
    assert writes == 1


def test_too_many_are_summed_up_by_endpoint_and_cache() -> None:
    batch = [hit(request_id=f"r{number}") for number in range(5)]
    batch += [hit(cache=CacheStatus.MISS), hit(endpoint="other", cache=None)]
    lines, writes = written(batch, [(hit(), 1000), (hit(), 1), (hit(endpoint="embeddings"), 7)])
    assert ids(lines[:3]) == ["r0", "r1", "r2"]
    assert lines[3:] == [
        "... and 1,003 more hits of chat",
        "... and 1 more misses of chat",
        "... and 1 more requests of other",
        "... and 7 more hits of embeddings",
    ]
    assert writes == 1


def test_failures_are_listed_before_others_and_all_in_their_order() -> None:
    batch = [hit(request_id=f"r{number}", status=502 if number in (4, 5) else 200) for number in range(6)]
    lines, _ = written(batch)
    assert ids(lines[:3]) == ["r0", "r4", "r5"]
    assert lines[3:] == ["... and 3 more hits of chat"]


def test_failures_only() -> None:
    lines, _ = written([hit(), hit(status=404), hit(status=503, request_id="r")], [(hit(), 9)], failures_only=True)
    assert ids(lines) == ["r"]


def test_nothing_is_no_write() -> None:
    assert written([]) == ([], 0)
