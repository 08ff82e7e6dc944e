"""Logging is the process's: what a test sets up must be gone after it."""

import logging
from collections.abc import Iterator

import pytest

NAMES = ("", "llmproxy", "uvicorn", "uvicorn.error", "uvicorn.asgi", "uvicorn.access")


@pytest.fixture(autouse=True)
def restored() -> Iterator[None]:
    before = [
        (logger, logger.level, list(logger.handlers), logger.propagate, logger.disabled)
        for logger in map(logging.getLogger, NAMES)
    ]
    root = logging.getLogger()
    # handlers that are not ours (pytest's) must not be closed by a set-up that replaces them
    root.handlers.clear()
    yield
    for handler in root.handlers:
        handler.close()
    for logger, level, handlers, propagate, disabled in before:
        logger.setLevel(level)
        logger.handlers[:] = handlers
        logger.propagate = propagate
        logger.disabled = disabled
