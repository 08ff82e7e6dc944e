"""What is read of the machine, of the loop, and of parts that fail."""

import asyncio
import threading

import psutil
import pytest

from llmproxy.app.monitoring import RECENT_SECONDS, FaultLog
from llmproxy.observe.process_stats import Lag, Meter, Resources, Sample


def test_a_reading() -> None:
    meter = Meter()
    sample = meter.read()
    assert sample.process_memory_bytes > 10_000_000
    assert sample.threads >= threading.active_count()
    assert sample.open_files is None or sample.open_files > 2
    assert 0.0 <= sample.system_cpu <= 1.0
    assert 0 < sample.system_memory_available_bytes < sample.system_memory_bytes
    assert sample.processors == psutil.cpu_count()
    assert meter.read().at >= sample.at


def test_a_process_that_works_is_seen_to_work() -> None:
    meter = Meter()
    meter.read()
    busy = psutil.Process()
    before = busy.cpu_times().user
    while busy.cpu_times().user - before < 0.05:
        sum(range(10_000))
    assert meter.read().process_cpu > 0.0


async def test_a_sample_is_there_soon_after_the_start_and_stays() -> None:
    resources = Resources()
    resources.open()
    sample = await resources.sample()
    await resources.close()
    await resources.close()
    assert resources.latest is sample


class BrokenMeter(Meter):
    """Fails twice, then works and says so."""

    def __init__(self, worked: asyncio.Event) -> None:
        super().__init__()
        self._left = 2
        self._worked = worked
        self._loop = asyncio.get_running_loop()

    def read(self) -> Sample:
        if self._left:
            self._left -= 1
            raise psutil.AccessDenied
        self._loop.call_soon_threadsafe(self._worked.set)
        return super().read()


async def test_what_cannot_be_read_is_logged_once_and_tried_again(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    worked = asyncio.Event()
    resources = Resources(seconds=0.001)
    monkeypatch.setattr(resources, "_meter", BrokenMeter(worked))
    resources.open()
    await worked.wait()
    await resources.close()
    assert len(caplog.records) == 1


async def test_a_loop_that_is_held_up_lags() -> None:
    told: list[float] = []
    twice = asyncio.Event()

    def on_lag(seconds: float) -> None:
        told.append(seconds)
        if len(told) == 2:
            twice.set()

    lag = Lag(on_lag, seconds=0.01)
    assert (lag.mean, lag.highest) == (None, None)
    lag.open()
    await asyncio.sleep(0)
    block = threading.Event()
    threading.Timer(0.05, block.set).start()
    # on purpose: nothing else can run
    block.wait()
    await twice.wait()
    await lag.close()
    await lag.close()
    assert told[0] >= 0.03
    assert lag.highest == max(told)
    assert lag.mean == pytest.approx(sum(told) / len(told))


def test_a_fault_is_recent_for_a_minute() -> None:
    now = 1000.0
    faults = FaultLog(lambda: now)
    assert (faults.last("sql"), faults.failing("sql")) == (None, False)
    faults.note("sql", "full")
    assert faults.failing("sql")
    assert not faults.failing("memory")
    now += RECENT_SECONDS
    assert not faults.failing("sql")
    fault = faults.last("sql")
    assert fault is not None
    assert (fault.kind, fault.at) == ("full", 1000.0)
