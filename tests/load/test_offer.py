"""What a load test finds out of a proxy before it, and of its process during it."""

from pathlib import Path

from tests.load.offer import Offer, look
from tests.load.usage import ProcessUsage, from_metrics, serving
from tests.scripted_upstream import ScriptedUpstream
from tests.server import Proxy


def test_what_a_proxy_offers(front: Proxy, llama_front: Proxy) -> None:
    assert look(front.url, None, embedding=True) == Offer("scripted", "scripted", jobs=True)
    found = look(llama_front.url, None, embedding=True)
    assert found.model
    assert found.embedding
    assert found.embedding != found.model


def test_the_process_behind_a_port_is_found(front: Proxy) -> None:
    process = serving(front.url)
    assert process is not None
    assert process.pid == front.process.pid
    assert serving("http://192.0.2.1:4141") is None
    assert serving("http://gpu-box:4141") is None
    assert serving("http://127.0.0.1:1") is None


def test_readings_are_summed_up(front: Proxy) -> None:
    usage = ProcessUsage(front.url)
    usage.read()
    usage.read()
    assert usage.used is not None
    assert usage.used.cpu >= 0
    assert usage.used.memory > 1e7


def test_one_reading_is_not_enough(front: Proxy) -> None:
    usage = ProcessUsage(front.url)
    usage.read()
    assert usage.used is None


def test_a_process_that_is_gone_has_no_readings() -> None:
    usage = ProcessUsage("http://127.0.0.1:1")
    usage.read()
    assert usage.used is None


def test_the_metrics_tell_the_same(front: Proxy) -> None:
    found = from_metrics(front.url)
    # they are made from /proc, which not every system has
    assert (found is not None) == Path("/proc/self/stat").exists()
    assert found is None or (found[0] > 0 and found[1] > 1e7)


def test_a_server_without_process_metrics_tells_nothing(upstream: ScriptedUpstream) -> None:
    assert from_metrics(upstream.url) is None
