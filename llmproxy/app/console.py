"""What the programs that go on until they are stopped say of themselves."""

import logging
import sys

from llmproxy.observe.formatters import LineFormatter, TextFormatter

NOTHING_FOUND = """no model server was found on this machine. Start one, for example

    llama-server -m model.gguf          (llama.cpp, port 8080)
    ollama serve                        (Ollama, port 11434)

or say where it is: llmproxy {verb} --upstream http://host:port"""


def say(line: str, form: LineFormatter) -> None:
    """For whoever started the program, whatever the log level."""
    record = logging.makeLogRecord({"name": "llmproxy", "levelname": "INFO", "levelno": logging.INFO, "msg": line})
    print(line if isinstance(form, TextFormatter) else form.record(record).rstrip(), file=sys.stderr, flush=True)  # noqa: T201
