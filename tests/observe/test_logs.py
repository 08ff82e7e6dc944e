import io
import json
import logging
from typing import TextIO

import pytest

from llmproxy.config.settings import LogFormat, LogLevel
from llmproxy.observe.access_log import JsonFormatter
from llmproxy.observe.logs import AsyncLogWriter, configure, form_for
from llmproxy.observe.text_log import TextFormatter
from tests.logging_state import restored
from tests.observe.exchanges import hit
from tests.observe.streams import Paused, Terminal

__all__ = ["restored"]


def lines(stream: io.StringIO) -> list[str]:
    """What was written, once the handler is closed as at the end of the program."""
    logging.getLogger().handlers[0].close()
    return [" ".join(line.split()[:1] + line.split()[2:]) for line in stream.getvalue().splitlines()]


def test_everything_comes_in_one_form_and_order() -> None:
    stream = io.StringIO()
    access = configure(LogLevel.INFO, LogFormat.TEXT, stream)
    logging.getLogger("llmproxy.cache").info("ready")
    access.write([hit()])
    logging.getLogger("uvicorn.error").info("running")
    logging.getLogger("library").warning("odd")
    shown = lines(stream)
    assert shown[0] == "info llmproxy.cache: ready"
    assert shown[1].startswith("HIT chat")
    assert shown[2:] == ["info llmproxy: running", "warn library: odd"]


def test_libraries_are_quiet_and_the_servers_access_log_is_off() -> None:
    stream = io.StringIO()
    configure(LogLevel.DEBUG, LogFormat.TEXT, stream)
    logging.getLogger("library").info("chatter")
    logging.getLogger("uvicorn.access").warning("GET /")
    logging.getLogger("llmproxy.cache").debug("detail")
    assert lines(stream) == ["debug llmproxy.cache: detail"]


def test_a_high_level_shows_failed_requests_only() -> None:
    stream = io.StringIO()
    access = configure(LogLevel.WARNING, LogFormat.TEXT, stream)
    logging.getLogger("llmproxy").info("ready")
    access.write([hit(), hit(status=500)])
    shown = lines(stream)
    assert len(shown) == 1
    assert shown[0].startswith("500 ")


def test_a_second_set_up_replaces_the_first() -> None:
    first, second = io.StringIO(), io.StringIO()
    configure(LogLevel.INFO, LogFormat.TEXT, first)
    configure(LogLevel.INFO, LogFormat.JSON, second)
    logging.getLogger("llmproxy").info("ready")
    logging.getLogger().handlers[0].close()
    assert first.getvalue() == ""
    assert json.loads(second.getvalue())["message"] == "ready"


def test_a_message_that_cannot_be_formatted_raises_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    stream = io.StringIO()
    configure(LogLevel.INFO, LogFormat.TEXT, stream)
    logging.getLogger("llmproxy").info("%d", "no number")
    logging.getLogger("llmproxy").info("next")
    assert lines(stream) == ["info llmproxy: next"]
    assert "no number" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("format", "stream", "form"),
    [
        (LogFormat.AUTO, Terminal(), TextFormatter),
        (LogFormat.AUTO, io.StringIO(), JsonFormatter),
        (LogFormat.TEXT, io.StringIO(), TextFormatter),
        (LogFormat.JSON, Terminal(), JsonFormatter),
    ],
)
def test_the_form(format: LogFormat, stream: TextIO, form: type) -> None:
    configure(LogLevel.INFO, LogFormat.JSON, io.StringIO())
    assert isinstance(form_for(format, stream), form)


@pytest.mark.parametrize(
    ("stream", "no_color", "coloured"),
    [(Terminal(), "", True), (Terminal(), "1", False), (io.StringIO(), "", False)],
)
def test_colours(monkeypatch: pytest.MonkeyPatch, stream: TextIO, no_color: str, coloured: bool) -> None:
    configure(LogLevel.INFO, LogFormat.JSON, io.StringIO())
    monkeypatch.setenv("NO_COLOR", no_color)
    assert ("\x1b[" in form_for(LogFormat.TEXT, stream).request(hit())) is coloured


def lost(count: int) -> str:
    return f"{count} lost\n"


def test_writes_in_order() -> None:
    stream = io.StringIO()
    outlet = AsyncLogWriter(stream, lost=lost)
    for number in range(100):
        outlet.write(f"{number}\n")
    outlet.close()
    assert stream.getvalue() == "".join(f"{number}\n" for number in range(100))


def test_a_paused_stream_holds_up_nobody_and_what_was_lost_is_reported() -> None:
    stream = Paused()
    outlet = AsyncLogWriter(stream, lost=lost, bound=2)
    outlet.write("first\n")
    assert stream.reached.wait(60)
    for number in range(5):
        outlet.write(f"{number}\n")
    stream.resumed.set()
    outlet.close()
    assert stream.getvalue() == "first\n0\n3 lost\n1\n"


def test_close_does_not_wait_for_a_paused_stream_for_ever() -> None:
    stream = Paused()
    outlet = AsyncLogWriter(stream, lost=lost, bound=1)
    outlet.write("first\n")
    assert stream.reached.wait(60)
    outlet.write("second\n")
    outlet.close(limit=0.01)
    outlet.close(limit=3600.0)
    outlet.write("late\n")
    stream.resumed.set()


def test_after_close_it_writes_directly() -> None:
    stream = io.StringIO()
    outlet = AsyncLogWriter(stream, lost=lost)
    outlet.close()
    outlet.write("late\n")
    assert stream.getvalue() == "late\n"


def test_a_stream_that_is_gone_raises_nothing() -> None:
    stream = io.StringIO()
    stream.close()
    outlet = AsyncLogWriter(stream, lost=lost)
    outlet.write("line\n")
    outlet.close()
    outlet.write("late\n")
