"""What the program prints when it starts, for the person who started it: at every log level."""

import logging
import sys

from llmproxy import __version__
from llmproxy.app.lifespan import HOW_TO_START_ONE
from llmproxy.app.state import AppState
from llmproxy.config.load import without_credentials
from llmproxy.config.settings import Settings
from llmproxy.observe.access_log import LineFormatter
from llmproxy.observe.logs import form_for
from llmproxy.observe.text_log import TextFormatter


def place_of_data(settings: Settings) -> str:
    """Where the database is, for people."""
    return str(settings.sqlite_file or without_credentials(settings.database))


def introduce(state: AppState) -> None:
    """Says what was started, and which model servers it has."""
    form = form_for(state.settings.log_format, sys.stderr)
    upstreams = state.services.upstreams.describe() or "none found yet; it is looked for"
    announce(f"llmproxy {__version__}: upstream {upstreams}", form)


def welcome(state: AppState, host: str, port: int) -> None:
    """Says where its data is and where it listens, and to people also what to do with that."""
    settings = state.settings
    form = form_for(settings.log_format, sys.stderr)
    announce(f"data in {place_of_data(settings)}", form)
    announce(f"listening on http://{f'[{host}]' if ':' in host else host}:{port}", form)
    if isinstance(form, TextFormatter):
        url = settings.local_url(port)
        announce(f"the web UI is {url}/ui\n\n{exports(url, has_keys=bool(settings.api_keys))}\n", form)
        if not state.services.upstreams.targets:
            announce(f"No model server was found on this machine. {HOW_TO_START_ONE}\n", form)
        announce(form.head(), form)


def exports(url: str, *, has_keys: bool = False) -> str:
    """What to paste into a shell so that the programs started there use the proxy at ``url``.

    The SDKs refuse to start without a key; ``has_keys`` says that the proxy has keys of its own, of which the user has
    one.
    """
    variables = {
        "OPENAI_BASE_URL": f"{url}/v1",
        **({} if has_keys else {"OPENAI_API_KEY": "none"}),
        "ANTHROPIC_BASE_URL": url,
        **({} if has_keys else {"ANTHROPIC_API_KEY": "none"}),
        "OLLAMA_HOST": url,
    }
    return "\n".join(f"export {name}={value}" for name, value in variables.items())


def announce(line: str, form: LineFormatter) -> None:
    """Prints a line for the person who started the program, at every log level."""
    record = logging.makeLogRecord({"name": "llmproxy", "levelname": "INFO", "levelno": logging.INFO, "msg": line})
    print(line if isinstance(form, TextFormatter) else form.record(record).rstrip(), file=sys.stderr, flush=True)  # noqa: T201
