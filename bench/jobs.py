"""Measurements of background jobs: the queue's rate, how long accepting takes, memory, and what interactive requests
feel of a batch."""

import http.client
import json
import statistics
import sys
import threading
import time
import urllib.parse
from pathlib import Path

from own import resident
from servers import Child, Servers, target

_BOUNDARY = "----llmproxy-bench"
_PATIENCE = 900.0


class Api:
    """One connection to the proxy; JSON in and out."""

    def __init__(self, child: Child) -> None:
        parts = urllib.parse.urlsplit(child.url)
        self._connection = http.client.HTTPConnection(parts.hostname, parts.port, timeout=120)

    def call(self, method: str, path: str, body: object = None) -> dict:
        content = None if body is None else json.dumps(body).encode()
        return json.loads(self.raw(method, path, content, "application/json"))

    def raw(self, method: str, path: str, content: object, kind: str) -> bytes:
        headers = {"content-type": kind}
        if hasattr(content, "stat"):
            headers["content-length"] = str(content.stat().st_size)
            content = content.open("rb")
        self._connection.request(method, path, content, headers)
        response = self._connection.getresponse()
        answer = response.read()
        if response.status >= 400:
            raise SystemExit(f"{method} {path}: {response.status} {answer[:300]!r}")
        return answer


def rate(servers: Servers, upstream: Child, database: Path, count: int, python: str = sys.executable) -> dict:
    """Items per second through the queue, each of them a miss that the upstream answers at once."""
    with servers.running(servers.llmproxy("jobs", upstream, database, python=python)) as child:
        api = Api(child)
        batch = _submitted(api, _written(database.with_suffix(".jsonl"), count, "rate"))
        began = time.perf_counter()
        done = _finished(api, batch)
        seconds = time.perf_counter() - began
        counts = done["request_counts"]
        if counts["completed"] != count:
            raise SystemExit(f"the queue did not complete everything: {counts}")
    return {"items": count, "seconds": seconds, "rate": count / seconds}


def accepting(servers: Servers, upstream: Child, database: Path, count: int) -> dict:
    """Milliseconds from the request for a background task to its 202, which is on the disk then."""
    with servers.running(servers.llmproxy("jobs", upstream, database)) as child:
        api, took = Api(child), []
        for number in range(count):
            began = time.perf_counter()
            api.call("POST", "/api/completions", {"prompt": f"accept {number} {began}", "background": True})
            took.append((time.perf_counter() - began) * 1000)
            time.sleep(0.01)
    return {"p50": statistics.median(took), "p95": _p95(took)}


def memory(servers: Servers, upstream: Child, database: Path, lines: int) -> dict:
    """What a large batch adds to the resident memory, and how long a request to /health waits at most meanwhile."""
    with servers.running(servers.llmproxy("jobs", upstream, database)) as child:
        asked, api = target(child, child.name), Api(child)
        api.call("GET", "/health")
        idle = resident(asked)
        stop, waits, most = threading.Event(), [], [idle]

        def watch() -> None:
            pings = Api(child)
            while not stop.is_set():
                began = time.perf_counter()
                pings.call("GET", "/health")
                waits.append((time.perf_counter() - began) * 1000)
                most[0] = max(most[0], resident(asked))
                time.sleep(0.01)

        watcher = threading.Thread(target=watch)
        watcher.start()
        try:
            path = _written(database.with_suffix(".jsonl"), lines, "memory")
            began = time.perf_counter()
            batch = _submitted(api, path)
            while api.call("GET", f"/v1/batches/{batch}")["status"] == "validating":
                time.sleep(0.05)
            validated = time.perf_counter() - began
            done = _finished(api, batch)
        finally:
            stop.set()
            watcher.join()
        if done["request_counts"]["completed"] != lines:
            raise SystemExit(f"the batch is {done['status']}: {done['request_counts']} {done['errors']}")
    return {
        "lines": lines,
        "idle": idle,
        "most": most[0],
        "validated": validated,
        "seconds": time.perf_counter() - began,
        "stall": max(waits),
        "p99": sorted(waits)[int(len(waits) * 0.99)],
    }


def beside(servers: Servers, paced: Child, database: Path, rows: int, requests: int) -> dict:
    """Milliseconds of interactive requests, one after the other, with and without a batch at work on the same slots."""
    with servers.running(servers.llmproxy("jobs", paced, database)) as child:
        api = Api(child)
        alone = _chats(api, requests, "alone")
        batch = _submitted(api, _written(database.with_suffix(".jsonl"), rows, "beside"))
        while api.call("GET", f"/v1/batches/{batch}")["status"] == "validating":
            time.sleep(0.05)
        chats = _chats(api, requests, "beside")
        counts = api.call("GET", f"/v1/batches/{batch}")["request_counts"]
        if counts["completed"] >= rows:
            raise SystemExit("the batch was over before the interactive requests were")
        api.call("POST", f"/v1/batches/{batch}/cancel")
    return {
        "alone": {"p50": statistics.median(alone), "p95": _p95(alone)},
        "beside": {"p50": statistics.median(chats), "p95": _p95(chats)},
        "rows": counts["completed"],
        "requests": requests,
    }


def _chats(api: Api, count: int, word: str) -> list[float]:
    took = []
    for number in range(count):
        body = _body(f"{word} {number} {time.time()}")
        began = time.perf_counter()
        api.call("POST", "/v1/chat/completions", body)
        took.append((time.perf_counter() - began) * 1000)
    return took


def _body(prompt: str) -> dict:
    return {"model": "gpt-4o-mini", "messages": [{"role": "user", "content": prompt}]}


def _written(path: Path, lines: int, word: str) -> Path:
    now = time.time()
    with path.open("w") as file:
        for number in range(lines):
            body = _body(f"{word} {number} {now}")
            line = {"custom_id": f"r{number}", "method": "POST", "url": "/v1/chat/completions", "body": body}
            file.write(json.dumps(line) + "\n")
    return path


def _submitted(api: Api, path: Path) -> str:
    """The id of a batch of the file's lines."""
    form = path.with_suffix(".form")
    with form.open("wb") as file:
        file.write(f'--{_BOUNDARY}\r\ncontent-disposition: form-data; name="purpose"\r\n\r\nbatch\r\n'.encode())
        name = f'name="file"; filename="{path.name}"'
        file.write(f"--{_BOUNDARY}\r\ncontent-disposition: form-data; {name}\r\n\r\n".encode())
        file.write(path.read_bytes())
        file.write(f"\r\n--{_BOUNDARY}--\r\n".encode())
    uploaded = json.loads(api.raw("POST", "/v1/files", form, f"multipart/form-data; boundary={_BOUNDARY}"))
    wanted = {
        "input_file_id": uploaded["id"],
        "endpoint": "/v1/chat/completions",
        "completion_window": "24h",
    }
    return api.call("POST", "/v1/batches", wanted)["id"]


def _finished(api: Api, batch: str) -> dict:
    deadline = time.perf_counter() + _PATIENCE
    while time.perf_counter() < deadline:
        found = api.call("GET", f"/v1/batches/{batch}")
        if found["status"] in ("completed", "failed", "expired", "cancelled"):
            return found
        time.sleep(0.05)
    raise SystemExit(f"the batch is still {found['status']} after {_PATIENCE:g} s: {found['request_counts']}")


def _p95(values: list[float]) -> float:
    return sorted(values)[int(len(values) * 0.95)]
