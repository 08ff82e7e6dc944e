"""The real nginx and Caddy with the configurations of ``deploy``, on a free port in front of one proxy."""

import os
import shutil
import socket
import subprocess
import time
from pathlib import Path
from types import TracebackType
from typing import Self

import pytest

from tests.deploy.prometheus import DEPLOY
from tests.timeouts import WAIT_SECONDS

#: the names in the configurations: of a host of its own, and of a site with a path for llmproxy
HOST, SITE = "llm.example.com", "example.com"

_NGINX = """\
daemon off;
master_process off;
pid {folder}/pid;
error_log stderr;
events {{}}
http {{
    access_log off;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    include {folder}/llmproxy.conf;
}}
"""


class ReverseProxy:
    """``kind`` is ``nginx`` or ``caddy``; ``behind`` is the port of the proxy that it stands in front of."""

    def __init__(self, kind: str, folder: Path, behind: int) -> None:
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port: int = free.getsockname()[1]
        self._log = (folder / "log").open("wb")
        self._folder = folder
        self._command = _nginx(folder, self.port, behind) if kind == "nginx" else _caddy(folder, self.port, behind)

    def __enter__(self) -> Self:
        environment = {**os.environ, "HOME": str(self._folder)}
        self._process = subprocess.Popen(
            self._command, stdin=subprocess.DEVNULL, stdout=self._log, stderr=subprocess.STDOUT, env=environment
        )
        deadline = time.monotonic() + WAIT_SECONDS
        while not self._listens():
            assert self._process.poll() is None, (self._folder / "log").read_text()
            assert time.monotonic() < deadline, (self._folder / "log").read_text()
            time.sleep(0.02)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.terminate()
        self._process.wait(WAIT_SECONDS)
        self._log.close()

    def _listens(self) -> bool:
        try:
            socket.create_connection(("127.0.0.1", self.port)).close()
        except ConnectionRefusedError:
            return False
        return True


def _program(name: str) -> str:
    found = shutil.which(name)
    if found is None:
        if os.environ.get("CI"):
            pytest.fail(f"{name} is not installed, and here it must be")
        pytest.skip(f"{name} is not installed")
    return found


def _nginx(folder: Path, port: int, behind: int) -> list[str]:
    """With ``deploy/nginx.conf``, but for the ports."""
    text = (DEPLOY / "nginx.conf").read_text()
    changed = text.replace("listen 80;", f"listen 127.0.0.1:{port};").replace("127.0.0.1:4141", f"127.0.0.1:{behind}")
    (folder / "llmproxy.conf").write_text(changed)
    (folder / "nginx.conf").write_text(_NGINX.format(folder=folder))
    return [_program("nginx"), "-p", str(folder), "-c", str(folder / "nginx.conf")]


def _caddy(folder: Path, port: int, behind: int) -> list[str]:
    """With ``deploy/Caddyfile``, but for the ports, and without certificates."""
    text = (DEPLOY / "Caddyfile").read_text().replace("127.0.0.1:4141", f"127.0.0.1:{behind}")
    for name in (HOST, SITE):
        text = text.replace(f"\n{name} {{", f"\nhttp://{name}:{port} {{")
    (folder / "Caddyfile").write_text("{\n\tadmin off\n\tauto_https off\n}\n" + text)
    return [_program("caddy"), "run", "--config", str(folder / "Caddyfile"), "--adapter", "caddyfile"]
