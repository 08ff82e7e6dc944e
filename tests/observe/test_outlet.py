import io

from llmproxy.observe.log_writer import AsyncLogWriter
from tests.observe.streams import Paused


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
    assert stream.reached.wait(10)
    for number in range(5):
        outlet.write(f"{number}\n")
    stream.resumed.set()
    outlet.close()
    assert stream.getvalue() == "first\n0\n3 lost\n1\n"


def test_close_does_not_wait_for_a_paused_stream_for_ever() -> None:
    stream = Paused()
    outlet = AsyncLogWriter(stream, lost=lost, bound=1)
    outlet.write("first\n")
    assert stream.reached.wait(10)
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
