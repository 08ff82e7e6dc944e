import io
import json
import logging
import sys
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.cells import cell_len

from llmproxy.observe.access_log import PLURALS, AccessLog, JsonFormatter, LineFormatter
from llmproxy.observe.logs import AsyncLogWriter
from llmproxy.observe.text_log import TextFormatter, fitted
from llmproxy.wire.exchange import Caller, Exchange, Usage
from llmproxy.wire.vocabulary import CacheStatus, Reason
from tests.observe.exchanges import hit

PLAIN = TextFormatter(colour=False)
FORMS: list[LineFormatter] = [PLAIN, TextFormatter(colour=True), JsonFormatter()]


def parsed(line: str) -> dict[str, Any]:
    document: dict[str, Any] = json.loads(line)
    return document


def record(
    message: str, *args: object, level: int = logging.WARNING, name: str = "llmproxy.cache"
) -> logging.LogRecord:
    return logging.LogRecord(name, level, __file__, 1, message, args, None)


def without_time(line: str) -> str:
    """Without the second column, and blanks beside others."""
    outcome, _, rest = line.partition(" ")
    return " ".join([*([outcome] if outcome else []), *rest.split()[1:]])


def test_text_of_a_request() -> None:
    expected = "HIT chat smollm2 12+34 2.00 ms 1.00 ms req-1"
    assert without_time(PLAIN.request(hit())) == expected


def test_text_of_a_request_of_which_little_is_known() -> None:
    bare = Exchange(request_id="req-2", method="GET", path="/health", started=0.0, started_at=0.0)
    assert without_time(PLAIN.request(bare)) == "--- 0 ms req-2 GET /health"


def test_text_of_a_failure() -> None:
    line = PLAIN.request(
        hit(status=502, cache=CacheStatus.MISS, reason=None, finished=22.0, usage=Usage(5), error="gone")
    )
    assert without_time(line) == "502 chat smollm2 5+0 12.0 s 1.00 ms req-1 gone"


def test_columns_stand_below_each_other_and_fit() -> None:
    form = TextFormatter(colour=False, question=lambda exchange: "Why is the sky blue? " * 9, columns=lambda: 100)
    lines = [
        form.head(),
        form.request(hit()),
        form.request(hit(cache=CacheStatus.BYPASS, reason=Reason.NO_STORE, finished=129.95, request_id="r" * 40)),
        form.request(hit(model="a model with a long name", user="someone with one", usage=Usage(12345, 6789))),
        form.request(hit(model="模型模型模型模型", user="用户")),
    ]
    at = cell_len(lines[0].partition("question")[0])
    for line, first in zip(lines[1:], ("Why", "(no-store) Why", "Why", "Why"), strict=True):
        assert cell_len(line.rstrip("\n")) <= 100, line
        assert cell_len(line.partition(first)[0]) == at, line


def test_a_wider_terminal_shows_more_of_the_question() -> None:
    def width(columns: int) -> int:
        form = TextFormatter(colour=False, question=lambda exchange: "a b" * 99, columns=lambda: columns)
        return len(form.request(hit()).rstrip("\n"))

    assert (width(80), width(100), width(140), width(1000)) == (80, 100, 140, 160)


@given(st.text(max_size=40), st.integers(1, 30))
def test_a_cell_has_its_width_whatever_is_in_it(text: str, width: int) -> None:
    printable = "".join(filter(str.isprintable, text))
    assert cell_len(fitted(printable, width)) == width or not printable.isascii()


def test_a_cell_of_wide_characters_has_its_width() -> None:
    for text in ("模型模型", "e\u0301e\u0301e\u0301e\u0301e\u0301e\u0301e\u0301e\u0301", "a模b型c"):
        for width in range(2, 10):
            assert cell_len(fitted(text, width)) == width, (text, width)


def test_colours_only_when_wanted() -> None:
    coloured = TextFormatter(colour=True)
    assert "\x1b[31m502" in coloured.request(hit(status=502))
    assert coloured.request(hit()).startswith("\x1b[32mHIT")
    assert "\x1b" not in PLAIN.request(hit(status=502))


def test_json_of_a_request() -> None:
    observed = hit(caller=Caller("team"), user="ann", session="s1", client="127.0.0.1")
    assert parsed(JsonFormatter().request(observed)) == {
        "time": "2023-11-14T22:13:20.002+00:00",
        "level": "info",
        "logger": "llmproxy.access",
        "message": "POST /v1/chat/completions 200",
        "request_id": "req-1",
        "caller": "team",
        "user": "ann",
        "session": "s1",
        "client": "127.0.0.1",
        "method": "POST",
        "path": "/v1/chat/completions",
        "status": 200,
        "endpoint": "chat",
        "model": "smollm2",
        "stream": False,
        "cache": "hit",
        "reason": "memory",
        "stored": None,
        "duration_seconds": 0.002,
        "first_byte_seconds": 0.001,
        "upstream": "",
        "upstream_seconds": 4.0,
        "prompt_tokens": 12,
        "completion_tokens": 34,
        "error": None,
    }


def test_that_nothing_is_stored_is_no_error() -> None:
    only = hit(cache=CacheStatus.ONLY_IF_CACHED, stored=Reason.ONLY_IF_CACHED, status=504, error="Nothing stored")
    assert parsed(JsonFormatter().request(only))["level"] == "info"
    assert parsed(JsonFormatter().request(hit(cache=CacheStatus.MISS, status=504, error="slow")))["level"] == "error"


def test_json_always_has_the_same_keys() -> None:
    bare = Exchange(request_id="req-2", method="GET", path="/health", started=0.0, started_at=0.0)
    assert list(parsed(JsonFormatter().request(bare))) == list(parsed(JsonFormatter().request(hit(status=503))))


@pytest.mark.parametrize("form", FORMS)
@given(forged=st.text(max_size=400) | st.sampled_from(["a\nb", "\x1b[2J", "\ud800", "x" * 5000, "\u2028", "\x85"]))
@settings(max_examples=60, deadline=None)
def test_callers_cannot_forge_lines(form: LineFormatter, forged: str) -> None:
    line = form.request(hit(path=forged, model=forged, request_id=forged, error=forged))
    assert line.endswith("\n")
    assert len(line.splitlines()) == 1
    assert len(line) < 20_000
    rest = line[:-1]
    for colour in ("31", "32", "33", "36", "2", "0"):
        rest = rest.replace(f"\x1b[{colour}m", "")
    assert "\x1b" not in rest
    line.encode()


@pytest.mark.parametrize("form", FORMS)
def test_secrets_and_bodies_are_never_in_a_line(form: LineFormatter) -> None:
    secret = "sk-secret"
    line = form.request(
        hit(request_body=secret.encode(), response_body=secret.encode(), caller=Caller(scope=secret, credential=secret))
    )
    assert secret not in line


def test_a_sum_of_requests() -> None:
    assert without_time(PLAIN.summary("chat", "hit", 5900, 0.0)) == "... and 5,900 more hits of chat"
    assert without_time(PLAIN.summary("other", "", 2, 0.0)) == "... and 2 more requests of other"
    assert parsed(JsonFormatter().summary("chat", "hit", 5900, 0.0)) == {
        "time": "1970-01-01T00:00:00.000+00:00",
        "level": "info",
        "logger": "llmproxy.access",
        "message": "5,900 more hits of chat",
        "endpoint": "chat",
        "cache": "hit",
        "count": 5900,
    }


@pytest.mark.parametrize("form", FORMS)
def test_what_was_lost_is_one_line(form: LineFormatter) -> None:
    assert form.lost(3).count("\n") == 1
    assert "3 pieces of log were lost" in form.lost(3)


def test_every_word_has_a_plural() -> None:
    assert PLURALS.keys() == set(CacheStatus)


def test_text_of_a_record() -> None:
    assert without_time(PLAIN.record(record("%d rows", 3))) == "warn llmproxy.cache: 3 rows"


def test_the_server_speaks_as_the_program() -> None:
    started = record("Started", level=logging.INFO, name="uvicorn.error")
    assert without_time(PLAIN.record(started)) == "info llmproxy: Started"
    assert parsed(JsonFormatter().record(started))["logger"] == "llmproxy"


def test_records_carry_their_traceback() -> None:
    failed = record("failed")
    try:
        raise KeyError("the reason")
    except KeyError:
        failed.exc_info = sys.exc_info()
    assert "KeyError: 'the reason'" in PLAIN.record(failed)
    document = parsed(JsonFormatter().record(failed))
    assert document["message"] == "failed"
    assert document["exception"].endswith("KeyError: 'the reason'")


def test_the_time_is_that_of_the_end() -> None:
    late = hit(started_at=0.0, started=0.0, finished=59.5)
    assert PLAIN.request(late).split()[1].endswith(":59")


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
    log = AccessLog(form, outlet.write, failures_only=failures_only, limit=3, clock=lambda: 0.0)
    log.write(batch, hits)
    outlet.close()
    return [without_time(line) for line in stream.getvalue().splitlines()], stream.writes


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
