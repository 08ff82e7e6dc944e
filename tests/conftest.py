"""Fixtures shared by every room's tests: upstreams, the program in front of them, clients."""

import signal
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import certifi
import httpx
import hypothesis
import pytest

from tests.llama import Llama
from tests.scripted_upstream import ScriptedUpstream
from tests.server import Proxy

pytest_plugins = ("tests.databases",)

MakeProxy = Callable[..., Proxy]

# how long an example takes is the machine's affair
hypothesis.settings.register_profile("untimed", deadline=None)
hypothesis.settings.load_profile("untimed")


def pytest_configure() -> None:
    """What a shell runs in the background is deaf to Ctrl-C, and so would be every program that is started here."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def sound(proxy: Proxy) -> None:
    """No fault may end in a traceback: every expected failure has a line of its own."""
    assert "Traceback (most recent call last)" not in proxy.log, proxy.log


@pytest.fixture(scope="session", autouse=True)
def one_authority(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """HTTP clients know a single certificate authority: none of them speaks TLS, and to read all costs each 20 ms."""
    end = "-----END CERTIFICATE-----\n"
    file = tmp_path_factory.mktemp("authority") / "one.pem"
    file.write_text(Path(certifi.where()).read_text().partition(end)[0] + end)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(certifi, "where", lambda: str(file))
        yield


@pytest.fixture(scope="session")
def upstream() -> Iterator[ScriptedUpstream]:
    """A scripted upstream of no special kind, for everyone. Tests find their own requests by ``marker``."""
    with ScriptedUpstream() as scripted:
        yield scripted


@pytest.fixture(scope="session")
def front(upstream: ScriptedUpstream, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Proxy]:
    """The program with its default settings in front of ``upstream``, for everyone."""
    with Proxy(upstream.url, database=tmp_path_factory.mktemp("front") / "llmproxy.db", followed=True) as proxy:
        yield proxy
    sound(proxy)


@pytest.fixture
def proxy(tmp_path: Path) -> Iterator[MakeProxy]:
    """Makes proxies of a test's own: ``proxy(upstream.url, disconnect_grace=0.1)``. Each has a database of its own."""
    with ExitStack() as stack:
        made: list[Proxy] = []

        def make(*upstreams: str, **settings: object) -> Proxy:
            folder = tmp_path / f"proxy{len(made)}"
            folder.mkdir()
            made.append(Proxy(*upstreams, database=folder / "llmproxy.db", **settings))
            stack.callback(made[-1].stop)
            return made[-1].start()

        yield make
    for each in made:
        sound(each)


@pytest.fixture
async def http(front: Proxy) -> AsyncIterator[httpx.AsyncClient]:
    """A plain HTTP client of ``front``."""
    async with httpx.AsyncClient(base_url=front.url, timeout=60, trust_env=False) as client:
        yield client


@pytest.fixture(scope="session")
def llama() -> Iterator[Llama]:
    """llama.cpp for chat."""
    with Llama() as server:
        yield server


@pytest.fixture(scope="session")
def llama_embedding() -> Iterator[Llama]:
    """llama.cpp for embeddings."""
    with Llama(embedding=True) as server:
        yield server


@pytest.fixture(scope="session")
def llama_front(llama: Llama, llama_embedding: Llama, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Proxy]:
    """The program in front of both llama.cpp servers."""
    database = tmp_path_factory.mktemp("llama") / "llmproxy.db"
    with Proxy(llama.url, llama_embedding.url, database=database) as proxy:
        yield proxy
    sound(proxy)
