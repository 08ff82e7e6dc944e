"""A request leaves no circles of references behind: what is in one waits for the garbage collector, with bodies and
answers, and the collector holds up everybody else."""

import json
import re
import signal
import time
from pathlib import Path

import pytest

from tests.conftest import MakeProxy
from tests.scripted_upstream import ScriptedUpstream
from tests.server import Proxy
from tests.timeouts import WAIT_SECONDS

REPORT = """
import gc, signal
signal.signal(signal.SIGUSR2, lambda *_: print("unreachable objects:", gc.collect(), flush=True))
"""
_FOUND = re.compile(r"unreachable objects: (\d+)")
REQUESTS = 100


def unreachable(server: Proxy) -> int:
    """How many objects the collector of a server finds now."""
    before = len(_FOUND.findall(server.log))
    server.process.send_signal(signal.SIGUSR2)
    ends = time.monotonic() + WAIT_SECONDS
    while len(found := _FOUND.findall(server.log)) == before:
        assert time.monotonic() < ends, server.log
        time.sleep(0.01)
    return int(found[-1])


@pytest.mark.parametrize("stream", [False, True], ids=["plain", "stream"])
def test_misses_leave_nothing_to_the_collector(
    upstream: ScriptedUpstream, proxy: MakeProxy, tmp_path: Path, stream: bool
) -> None:
    (tmp_path / "sitecustomize.py").write_text(REPORT)
    server = proxy(upstream.url, python_path=tmp_path)
    with server.line() as line:
        for number in range(2 * REQUESTS):
            if number == REQUESTS:
                # what the start left behind, and what is made once
                unreachable(server)
            body = {"model": "m", "messages": [{"role": "user", "content": f"number {number}"}], "stream": stream}
            heard = line.ask("POST", "/v1/chat/completions", [], json.dumps(body).encode())
            assert heard.first("x-cache") == "MISS"
        assert unreachable(server) < REQUESTS
