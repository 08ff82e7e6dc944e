"""The Dockerfile's own instructions, carried out in a clean folder as far as they can be without a Docker engine.

The build stage's COPY and RUN instructions install into a folder that stands for the image's root; then the entry point
runs with the image's environment until its health check passes. Nothing is repeated here that the Dockerfile says.
"""

import json
import os
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
_START_SECONDS = 60.0
#: the image's paths that the instructions write to
_PATHS = ("/opt/llmproxy", "/data")


@dataclass(frozen=True)
class Instruction:
    word: str
    rest: str

    def form(self) -> list[str]:
        """The command of an instruction in its JSON form."""
        command: list[str] = json.loads(self.rest[self.rest.index("[") :])
        return command


def instructions() -> list[list[Instruction]]:
    """The instructions of each stage."""
    text = (ROOT / "Dockerfile").read_text().replace("\\\n", " ")
    stages: list[list[Instruction]] = []
    for line in text.splitlines():
        word, _, rest = line.strip().partition(" ")
        if not word or word.startswith("#"):
            continue
        if word == "FROM":
            stages.append([])
        stages[-1].append(Instruction(word, rest.strip()))
    return stages


@dataclass(frozen=True)
class Image:
    """A folder in the image's place, and what its last stage says about running it."""

    root: Path
    environment: dict[str, str]
    last: dict[str, Instruction]

    def run(self, command: list[str], port: int) -> subprocess.Popen[str]:
        home = os.environ["HOME"]
        return subprocess.Popen(
            # a user of its own has no part in the test: files may belong to whoever runs it
            [shutil.which(command[0], path=self.environment["PATH"]) or command[0], *command[1:]],
            cwd=self.root / "data",
            env={
                **self.environment,
                "HOME": home,
                "LLMPROXY_PORT": str(port),
                "LLMPROXY_ADMIN_TOKEN": "token",
                "LLMPROXY_UPSTREAM": "http://127.0.0.1:9",
            },
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )


def in_folder(text: str, root: Path) -> str:
    """``text`` with the image's paths moved under ``root``."""
    for path in _PATHS:
        text = text.replace(path, f"{root}{path}")
    return text


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Image:
    root = tmp_path_factory.mktemp("image")
    source = root / "src"
    source.mkdir()
    (root / "data").mkdir()
    first, last = instructions()
    for step in first:
        if step.word == "COPY":
            *names, target = shlex.split(step.rest)
            for name in names:
                copy(ROOT / name, source / target / ("" if target == "./" else "."), name)
        elif step.word == "RUN":
            command = in_folder(step.rest.replace("python -m venv", f"{sys.executable} -m venv"), root)
            subprocess.run(command, shell=True, check=True, cwd=source, timeout=600, capture_output=True)
    environment = {"PATH": os.environ["PATH"]}
    for step in last:
        if step.word == "ENV":
            name, _, value = in_folder(step.rest, root).partition("=")
            environment[name] = value.replace("$PATH", environment["PATH"])
    return Image(root, environment, {step.word: step for step in last})


def copy(source: Path, target: Path, name: str) -> None:
    if source.is_dir():
        shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__"), dirs_exist_ok=True)
    else:
        shutil.copy(source, target / name)


def test_what_is_copied_is_not_ignored() -> None:
    kept = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    first, last = instructions()
    copied = {name for step in first if step.word == "COPY" for name in shlex.split(step.rest)[:-1]}
    assert copied == kept
    assert all((ROOT / name).exists() for name in kept)
    assert [step.rest for step in last if step.word == "COPY"] == ["--from=build /opt/llmproxy /opt/llmproxy"]


def test_the_image_runs_as_a_user_of_its_own_with_a_volume_for_its_data() -> None:
    last = {step.word: step.rest for step in instructions()[-1]}
    assert last["USER"] not in ("", "root", "0")
    assert f"useradd --system --uid 10001 --home-dir {last['VOLUME']} {last['USER']}" in last["RUN"]
    assert last["WORKDIR"] == last["VOLUME"]
    database = next(step.rest for step in instructions()[-1] if step.rest.startswith("DATABASE_PATH="))
    assert database.startswith(f"DATABASE_PATH={last['VOLUME']}/")


@pytest.mark.timeout(700)
def test_the_entry_point_serves_until_it_is_stopped_and_is_healthy_meanwhile(image: Image) -> None:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    check = image.last["HEALTHCHECK"].form()
    with image.run(check, port) as unhealthy:
        assert unhealthy.wait(60) == 1
    command = image.last["ENTRYPOINT"].form() + image.last["CMD"].form()
    with image.run(command, port) as server:
        deadline = time.monotonic() + _START_SECONDS
        healthy = False
        while not healthy and server.poll() is None and time.monotonic() < deadline:
            with image.run(check, port) as probe_process:
                healthy = probe_process.wait(60) == 0
        server.send_signal(signal.SIGTERM)
        out, _ = server.communicate(timeout=60)
    assert healthy, out
    assert server.returncode == 0, out
    assert (image.root / "data" / "llmproxy.db").exists()
