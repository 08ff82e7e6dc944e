"""Streams recorded from a real llama.cpp, and how to read them."""

from pathlib import Path

from llmproxy.wire.sse import SseSplitter

_FOLDER = Path(__file__).parent / "samples"


def sample(name: str) -> list[bytes]:
    """The frames of the recorded stream ``name``."""
    splitter = SseSplitter()
    frames = splitter.feed((_FOLDER / f"{name}.sse").read_bytes())
    assert splitter.rest() == b""
    return frames
