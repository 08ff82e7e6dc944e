"""Streams recorded from a real llama.cpp, and how streams are read."""

from pathlib import Path

from llmproxy.wire.dialect import Dialect
from llmproxy.wire.documents import error_message
from llmproxy.wire.framing import SseSplitter

_FOLDER = Path(__file__).parent / "samples"


def sample(name: str) -> list[bytes]:
    """The frames of the recorded stream ``name``."""
    splitter = SseSplitter()
    frames = splitter.feed((_FOLDER / f"{name}.sse").read_bytes())
    assert splitter.rest() == b""
    return frames


def fault_message(dialect: Dialect, frame: bytes) -> str | None:
    """The message of the error that a frame tells, None for an ordinary frame."""
    fault = dialect.fault(frame)
    return None if fault is None else error_message(fault.error)
