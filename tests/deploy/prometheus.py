"""A real Prometheus on a free port, which scrapes one address every second."""

import os
import shutil
import socket
import subprocess
import time
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import httpx
import pytest

from tests.timeouts import WAIT_SECONDS

DEPLOY = Path(__file__).parents[2] / "deploy"

_CONFIG = """\
global: {{scrape_interval: 1s, scrape_timeout: 1s, evaluation_interval: 1s}}
rule_files: ["{rules}"]
scrape_configs:
  - job_name: llmproxy
    static_configs: [{{targets: ["127.0.0.1:{port}"]}}]
"""


def program(name: str) -> str:
    """The path of a program of the Debian package ``prometheus``."""
    found = shutil.which(name)
    if found is None:
        if os.environ.get("CI"):
            pytest.fail(f"{name} is not installed, and here it must be")
        pytest.skip(f"{name} is not installed")
    return found


class Prometheus:
    """``target`` is the port it scrapes."""

    def __init__(self, folder: Path, target: int) -> None:
        self._log = (folder / "log").open("wb")
        self._config = folder / "prometheus.yml"
        self._config.write_text(_CONFIG.format(rules=DEPLOY / "prometheus" / "alerts.yml", port=target))
        self._folder = folder
        self._client = httpx.Client(trust_env=False, timeout=60)
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        with socket.create_server(("127.0.0.1", 0)) as free:
            address = f"127.0.0.1:{free.getsockname()[1]}"
        self._client.base_url = httpx.URL(f"http://{address}")
        self._process = subprocess.Popen(
            [
                program("prometheus"),
                f"--config.file={self._config}",
                f"--storage.tsdb.path={self._folder / 'data'}",
                f"--web.listen-address={address}",
            ],
            stdin=subprocess.DEVNULL,
            stdout=self._log,
            stderr=subprocess.STDOUT,
        )
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._process is not None:
            self._process.terminate()
            self._process.wait(WAIT_SECONDS)
        self._client.close()
        self._log.close()

    def ask(self, expression: str) -> list[float]:
        """The values of an expression now, one for each series; what is no number is left out."""
        return [value for value in self.shown(expression) if value == value]

    def shown(self, expression: str) -> list[float]:
        """The same with NaN, as a panel shows it."""
        answer = self._get("/api/v1/query", {"query": expression})
        return [float(series["value"][1]) for series in answer["result"]]

    def rules(self) -> dict[str, str]:
        """The alerts and how their last evaluation went: ``ok``, ``err`` or ``unknown``."""
        groups = self._get("/api/v1/rules", {})["groups"]
        return {rule["name"]: rule["health"] for group in groups for rule in group["rules"]}

    def scraped(self, since: float) -> None:
        """Waits until it has begun and stored a good scrape after the Unix time ``since``."""
        deadline = time.monotonic() + WAIT_SECONDS
        while not self._has(f"timestamp(llmproxy_build_info) > {since}"):
            assert time.monotonic() < deadline, f"no scrape: {(self._folder / 'log').read_text()}"

    def _has(self, expression: str) -> bool:
        try:
            return bool(self.ask(expression))
        except httpx.TransportError:
            # it does not listen yet
            return False
        except httpx.HTTPStatusError as error:
            if error.response.status_code != 503:
                raise
            return False

    def _get(self, path: str, parameters: dict[str, str]) -> Any:
        response = self._client.get(path, params=parameters)
        response.raise_for_status()
        document = response.json()
        assert document["status"] == "success", document
        return document["data"]
