"""Load: wrk with a small script for throughput, one raw socket for times to the first and to the last byte."""

import json
import os
import re
import socket
import statistics
import subprocess
import tempfile
import time
import urllib.request

from measured import Target

#: distinct requests of mode ``rows``
ROWS = 1000
#: a pattern of the upstream: 100 chunks 10 ms apart
_PACED = "[stub c=10000 n=100]"

_SCRIPT = r"""
local mode, run, rows = "%(mode)s", "%(run)s", %(rows)d
local headers = %(headers)s
local before, after, path = '%(before)s', '"}]}', "%(path)s"
local thread, n = 0, 0
local fixed
function setup(it) it:set("thread", thread); thread = thread + 1 end
function init() fixed = wrk.format("POST", path, headers, before .. "fixed " .. run .. after) end
function request()
  if mode == "fixed" then return fixed end
  n = n + 1
  local which = mode == "rows" and "row " .. (n %% rows) or run .. "-" .. thread .. "-" .. n
  return wrk.format("POST", path, headers, before .. which .. after)
end
function done(summary, latency)
  local e = summary.errors
  io.write(string.format("\nRESULT %%d %%d %%d %%d %%d\n", summary.requests, summary.duration,
    e.status + e.connect + e.read + e.write + e.timeout, latency:percentile(50), latency:percentile(99)))
end
"""

_BODY = (
    '{"model":"%s","temperature":0,"max_tokens":256,%s"messages":[{"role":"system","content":"You are a helpful '
    "assistant. Answer briefly and precisely, cite your sources, and never invent facts. If you are not sure, say "
    'so."},{"role":"user","content":"Explain in two short paragraphs how an HTTP cache decides whether a stored '
    "response may be reused, and what a cache key is. Mention validators, freshness lifetime and the Vary header. %s "
)


def is_stream(mode: str) -> bool:
    return mode.startswith("stream") or mode in ("paced", "first")


def is_hit(mode: str) -> bool:
    return mode.endswith("hit")


def wrk(target: Target, mode: str, connections: int, seconds: float, core: int | None, run: str) -> dict | None:
    """One measurement with wrk: rates, latencies in microseconds, CPU; None where nothing was answered."""
    kind = "fixed" if is_hit(mode) else "rows" if mode == "rows" else "unique"
    headers = {"content-type": "application/json", "authorization": "Bearer sk-bench"} | target.headers
    table = ", ".join(f"[{json.dumps(name)}]={json.dumps(value)}" for name, value in headers.items())
    script = _SCRIPT % {
        "mode": kind,
        "run": run,
        "rows": ROWS,
        "headers": f"{{{table}}}",
        "before": _before(target, mode),
        "path": target.full_path,
    }
    command = ["taskset", "-c", str(core)] if core is not None else []
    command += ["wrk", "-t1", f"-c{connections}", f"-d{max(1, round(seconds))}s", "--timeout", "10s", "-s"]
    with tempfile.NamedTemporaryFile("w", suffix=".lua") as file:
        file.write(script)
        file.flush()
        processes = target.processes()
        cpu, began = target.cpu(processes), time.monotonic()
        command += [file.name, f"http://{target.host}:{target.port}"]
        output = subprocess.run(command, capture_output=True, text=True, check=False).stdout
        spent, took = target.cpu(processes).since(cpu), time.monotonic() - began
    match = re.search(r"^RESULT (.*)$", output, re.M)
    if not match:
        return None
    requests, duration, errors, p50, p99 = map(int, match[1].split())
    if not requests:
        return None
    result = {
        "requests": requests,
        "rate": requests / duration * 1e6,
        "p50": p50,
        "p99": p99,
        "errors": errors,
        "cpu": spent / requests * 1e6,
        "busy": spent / took,
    }
    if mode == "paced":
        result["chunk"] = result["cpu"] / 101
    return result


def body(target: Target, text: str, *, stream: bool = False) -> bytes:
    """The body that wrk's script sends with ``text`` at its end."""
    return (_before(target, "stream" if stream else "plain") + text + '"}]}').encode()


def _before(target: Target, mode: str) -> str:
    stream = '"stream":true,' if is_stream(mode) else ""
    return _BODY % (target.model, stream, _PACED if mode == "paced" else "")


class Connection:
    """One kept connection, blocking."""

    def __init__(self, target: Target) -> None:
        self._target = target
        self._socket: socket.socket | None = None

    def ask(self, content: bytes) -> tuple[float, float, bytes]:
        """Seconds to the first byte of the body and to the last, and the whole answer. Raises ``OSError``."""
        if self._socket is None:
            self._socket = socket.create_connection((self._target.host, self._target.port), 20)
            self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        request = http(self._target, content)
        began = time.perf_counter()
        self._socket.sendall(request)
        answer, first = b"", 0.0
        while True:
            piece = self._socket.recv(262_144)
            answer += piece
            if not first and b"{" in answer[answer.find(b"\r\n\r\n") :]:
                first = time.perf_counter() - began
            if not piece:
                self.close()
                break
            if whole(answer):
                break
        return first, time.perf_counter() - began, answer

    def close(self) -> None:
        if self._socket is not None:
            self._socket.close()
            self._socket = None


def http(target: Target, content: bytes) -> bytes:
    """A request as bytes."""
    lines = [
        f"POST {target.full_path} HTTP/1.1",
        "Host: localhost",
        "Authorization: Bearer sk-bench",
        "Content-Type: application/json",
        *(f"{name}: {value}" for name, value in target.headers.items()),
        f"Content-Length: {len(content)}",
    ]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + content


def whole(answer: bytes) -> bool:
    """Whether an HTTP response is complete."""
    end = answer.find(b"\r\n\r\n")
    if end < 0:
        return False
    length = re.search(rb"\r\ncontent-length: *(\d+)", answer[:end], re.I)
    return len(answer) >= end + 4 + int(length[1]) if length else answer.endswith(b"0\r\n\r\n")


def prime(target: Target, mode: str, run: str) -> None:
    """Sees to it that the fixed request of this run is a hit."""
    connection, content = Connection(target), body(target, "fixed " + run, stream=is_stream(mode))
    connection.ask(content)
    time.sleep(0.1)
    connection.ask(content)
    connection.close()


def first_bytes(target: Target, count: int, run: str, core: int | None) -> dict[str, float]:
    """Medians in microseconds at one connection: 20 chunks 0.5 ms apart on a miss, a stored stream on a hit."""
    everywhere = os.sched_getaffinity(0)
    if core is not None:
        os.sched_setaffinity(0, {core})
    try:
        return _first_bytes(target, count, run)
    finally:
        os.sched_setaffinity(0, everywhere)


def _first_bytes(target: Target, count: int, run: str) -> dict[str, float]:
    connection, result = Connection(target), {}
    for kind in ("miss", "hit"):
        if kind == "hit" and not target.caches:
            continue
        if kind == "hit":
            prime(target, "stream_hit", run)
        firsts, ends = [], []
        for index in range(count):
            text = f"fixed {run}" if kind == "hit" else f"[stub c=500 n=20] {run}-{index}"
            first, end, _ = connection.ask(body(target, text, stream=True))
            firsts.append(first * 1e6)
            ends.append(end * 1e6)
        result[f"{kind}_first"] = statistics.median(firsts)
        result[f"{kind}_end"] = statistics.median(ends)
    connection.close()
    return result


def asked(stub: str) -> int:
    """How many requests the stub at this URL has answered."""
    with urllib.request.urlopen(f"{stub}/__count", timeout=10) as response:
        return json.load(response)["posts"]
