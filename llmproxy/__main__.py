"""``python -m llmproxy`` is the same program as ``llmproxy``."""

from llmproxy.cli import main

if __name__ == "__main__":
    main()
