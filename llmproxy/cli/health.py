"""``python -m llmproxy.cli.health``: whether the proxy on this machine lives, as an exit code."""

import sys

from llmproxy.cli.client import ApiClient
from llmproxy.cli.options import CommandFailed
from llmproxy.config.load import ConfigError, load


def main() -> None:
    """Exits with 0 if the proxy answers, else with 1 and the reason."""
    try:
        ApiClient(load({}).settings.local_url()).health()
    except (ConfigError, CommandFailed) as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
