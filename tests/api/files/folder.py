"""What a test's server keeps of files."""

import time
from pathlib import Path

from tests.server import Proxy
from tests.timeouts import WAIT_SECONDS


def kept(proxy: Proxy) -> list[str]:
    """Everything in the server's folder of files, half-written things included."""
    folder = proxy.database.parent / "files"
    return sorted(path.name for path in folder.iterdir()) if folder.exists() else []


def until_kept(proxy: Proxy, names: list[str]) -> None:
    """Waits until the folder holds just these. Raises ``AssertionError`` if it does not come to that."""
    deadline = time.monotonic() + WAIT_SECONDS
    while kept(proxy) != sorted(names):
        assert time.monotonic() < deadline, kept(proxy)
        time.sleep(0.01)


def blob(proxy: Proxy, id: str) -> Path:
    return proxy.database.parent / "files" / id
