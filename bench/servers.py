"""The servers of a measurement: each a child process on its core, all of them ended at the end."""

import getpass
import grp
import os
import shutil
import signal
import socket
import string
import subprocess
import sys
import time
import urllib.error
import urllib.request
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import load
from measured import Target

HERE = Path(__file__).parent
ROOT = HERE.parent

#: the newest series whose proxy can be installed from the package index
LITELLM = "litellm[proxy]>=1.108,<1.109"
#: the commit that ratios over time refer to
REFERENCE = "616a797"

_PACKAGES = {"wrk": "wrk", "nginx": "nginx", "taskset": "util-linux"}
#: what an installation's own settings are called; a measured server has none but those it is given
_SETTINGS = ("LLMPROXY_", "CACHE_", "DATABASE_", "REDIS_URL", "TASK_QUEUE_")


class NotReady(Exception):
    """A server did not come up; the message holds its last words."""


def missing() -> list[str]:
    """Debian packages without which nothing can be measured."""
    path = os.environ.get("PATH", "") + ":/usr/sbin"
    return [package for program, package in _PACKAGES.items() if shutil.which(program, path=path) is None]


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


@dataclass
class Cores:
    """One for the servers, one for the load generator and the upstream; None where there is only one."""

    servers: int | None
    load: int | None

    @classmethod
    def choose(cls) -> "Cores":
        cores = sorted(os.sched_getaffinity(0))
        return cls(cores[0], cores[1]) if len(cores) > 1 else cls(None, None)


class Child:
    """A running server."""

    def __init__(self, name: str, process: subprocess.Popen, log: Path, port: int) -> None:
        self.name = name
        self.process = process
        self.log = log
        self.port = port
        self.url = f"http://127.0.0.1:{port}"

    def ready(self, path: str = "/", seconds: float = 60) -> None:
        """Waits until ``path`` answers, whatever the status. Raises ``NotReady``."""
        ends = time.monotonic() + seconds
        while time.monotonic() < ends:
            if self.process.poll() is not None:
                break
            try:
                urllib.request.urlopen(self.url + path, timeout=2).close()
            except urllib.error.HTTPError:
                return
            except OSError:
                time.sleep(0.05)
            else:
                return
        words = self.log.read_text(errors="replace")[-2000:]
        raise NotReady(f"{self.name} did not answer on {self.url}{path}:\n{words}")

    def stop(self, seconds: float = 15) -> None:
        """Asks it to end, waits, and kills what is left of its process group."""
        self._signal(signal.SIGTERM)
        try:
            self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            pass
        self._signal(signal.SIGKILL)
        self.process.wait()

    def _signal(self, number: int) -> None:
        try:
            os.killpg(self.process.pid, number)
        except ProcessLookupError:
            pass


class Servers:
    """Starts children in ``folder``; ends them all when it is left."""

    def __init__(self, folder: Path, cores: Cores, stub: list) -> None:
        self.folder = folder
        self.cores = cores
        self.stub_command = stub
        self.children: list[Child] = []

    def __enter__(self) -> "Servers":
        # a killed run must not leave servers behind
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
        return self

    def __exit__(self, *_: object) -> None:
        for child in reversed(self.children):
            child.stop()

    def start(
        self,
        name: str,
        command: list,
        core: int | None,
        port: int,
        cwd: Path | None = None,
        **settings: object,
    ) -> Child:
        """``settings`` become environment variables."""
        env = {key: value for key, value in os.environ.items() if not key.startswith(_SETTINGS)}
        env |= {key: str(value) for key, value in settings.items()}
        log = self.folder / f"{name}.log"
        pinned = ["taskset", "-c", str(core)] if core is not None else []
        with log.open("wb") as output:
            process = subprocess.Popen(
                pinned + [str(word) for word in command],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=env,
                cwd=cwd or self.folder,
                start_new_session=True,
            )
        child = Child(name, process, log, port)
        self.children.append(child)
        return child

    def stop(self, child: Child) -> None:
        child.stop()
        self.children.remove(child)

    @contextmanager
    def running(self, child: Child):
        try:
            yield child
        finally:
            self.stop(child)

    def stub(self, name: str, core: int | None) -> Child:
        port = free_port()
        child = self.start(name, [*self.stub_command, port], core, port)
        child.ready()
        return child

    def paced(self, name: str) -> Child:
        """A model server with four slots, each answer of which takes its time."""
        port = free_port()
        child = self.start(name, [sys.executable, HERE / "slots.py", port], self.cores.load, port)
        child.ready("/props")
        return child

    def nginx(self, upstream: Child) -> Child:
        port = free_port()
        folder = self.folder / "nginx"
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        template = string.Template((HERE / "nginx.conf").read_text())
        user = f"{getpass.getuser()} {grp.getgrgid(os.getgid()).gr_name}"
        conf = folder / "nginx.conf"
        conf.write_text(template.substitute(user=user, port=port, upstream=upstream.port))
        program = shutil.which("nginx", path=os.environ.get("PATH", "") + ":/usr/sbin")
        child = self.start("nginx", [program, "-p", folder, "-c", conf], self.cores.servers, port)
        child.ready("/v1/models")
        return child

    def relay(self, upstream: Child) -> Child:
        """The barest relay of the parts that llmproxy is made of."""
        port = free_port()
        child = self.start("relay", [sys.executable, HERE / "relay.py", upstream.url, port], self.cores.servers, port)
        child.ready("/v1/models")
        return child

    def litellm(self, upstream: Child, *, wait: bool = True) -> Child:
        """LiteLLM with its cache in memory. Raises ``NotReady``."""
        port = free_port()
        folder = self.folder / "litellm"
        conf = self.folder / "litellm.yaml"
        conf.write_text(string.Template((HERE / "litellm.yaml").read_text()).substitute(upstream=upstream.url))
        command = [
            folder / "bin" / "litellm",
            "--config",
            conf,
            "--host",
            "127.0.0.1",
            "--port",
            port,
            "--num_workers",
            "1",
        ]
        quiet = {"LITELLM_LOG": "ERROR", "LITELLM_LOCAL_MODEL_COST_MAP": "True", "LITELLM_TELEMETRY": "False"}
        child = self.start("litellm", command, self.cores.servers, port, **quiet)
        if wait:
            child.ready("/health/liveliness", 120)
        return child

    def llmproxy(
        self,
        name: str,
        upstream: Child,
        database: Path,
        *,
        wait: bool = True,
        python: str = sys.executable,
        **settings: object,
    ) -> Child:
        """The proxy as it comes, everything on, unless ``settings`` say otherwise.

        ``python`` is the interpreter of the environment whose llmproxy is meant.
        """
        port = free_port()
        command = [python, "-m", "llmproxy", "serve", "--upstream", upstream.url]
        command += ["--port", port, "--database", database]
        child = self.start(name, command, self.cores.servers, port, **settings)
        if wait:
            child.ready("/health")
        return child


def build_stub(folder: Path) -> list:
    """The command that starts the upstream: made from stub.c, or its slower twin where there is no compiler."""
    if shutil.which("gcc") is None:
        print("gcc is missing: the upstream is stub.py, which holds nginx back", file=sys.stderr)
        return [sys.executable, HERE / "stub.py"]
    subprocess.run(["gcc", "-O2", "-o", folder / "stub", HERE / "stub.c"], check=True)
    return [folder / "stub"]


def install_litellm(folder: Path) -> str:
    """LiteLLM in an environment of its own. Returns why it cannot be had, or ""."""
    return _install(folder / "litellm", LITELLM)


def install_reference(folder: Path, commit: str) -> str:
    """llmproxy as it was at ``commit``, on the libraries of today. Returns why it cannot be had, or ""."""
    source, frozen = folder / "reference-source", folder / "libraries.txt"
    try:
        archive = subprocess.run(["git", "archive", commit], cwd=ROOT, check=True, capture_output=True).stdout
        shutil.rmtree(source, ignore_errors=True)
        source.mkdir()
        subprocess.run(["tar", "-x", "-C", source], input=archive, check=True)
        freeze = [sys.executable, "-m", "pip", "freeze", "--exclude-editable"]
        frozen.write_bytes(subprocess.run(freeze, check=True, capture_output=True).stdout)
    except (OSError, subprocess.CalledProcessError) as error:
        return str(error)
    return _install(folder / f"reference-{commit}", "--constraint", frozen, source)


def _install(environment: Path, *what: object) -> str:
    """A virtual environment with these packages, made once. Returns why it cannot be had, or ""."""
    complete = environment / "complete"
    if complete.exists():
        return ""
    print(f"installing {environment.name} into an environment of its own; this takes a minute", file=sys.stderr)
    try:
        subprocess.run([sys.executable, "-m", "venv", environment], check=True)
        install = [environment / "bin" / "python", "-m", "pip", "install", "--quiet", *map(str, what)]
        subprocess.run(install, check=True, timeout=1200, capture_output=True, text=True)
        complete.touch()
    except subprocess.CalledProcessError as error:
        return (error.stderr or str(error)).strip().splitlines()[-1]
    except (OSError, subprocess.TimeoutExpired) as error:
        return str(error)
    return ""


def target(child: Child, name: str, **options: object) -> Target:
    return Target(name, child.url, **options)


def answers(child: Child, text: str = "hello") -> bytes:
    """One answer, whole."""
    connection = load.Connection(target(child, child.name))
    answer = connection.ask(load.body(target(child, child.name), text))[2]
    connection.close()
    return answer
